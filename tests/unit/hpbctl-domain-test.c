/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of helper/ctl/domain.c: on, off, twice, and what must not change.
 */
#include <string.h>
#include <libxml/parser.h>
#include "domain.h"

#define NS "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"
#define DEVICES "<devices><emulator>/e</emulator><memballoon model='virtio'>" \
    "<stats period='5'/></memballoon></devices>"
#define PLAIN "<domain type='kvm'>\n  <name>a&amp;b</name><!-- kept -->\n" \
    DEVICES "<new-element x='1'/></domain>\n"

static gboolean uses(const char *xml)
{
    g_autoptr(GError) err = NULL;
    gboolean result = FALSE;

    g_assert_true(hpbctl_domain_check(xml, &result, &err));
    g_assert_no_error(err);
    return result;
}

static char *change(const char *xml, gboolean enable)
{
    g_autoptr(GError) err = NULL;
    char *text = hpbctl_domain_change(xml, enable, NULL, &err);

    g_assert_no_error(err);
    g_assert_nonnull(text);
    g_assert_cmpint(uses(text), ==, enable);
    return text;
}

static void test_there_and_back(void)
{
    g_autofree char *on = change(PLAIN, TRUE);
    g_autofree char *again = change(on, TRUE);
    g_autofree char *off = change(on, FALSE);
    g_autofree char *still = change(off, FALSE);

    g_assert_false(uses(PLAIN));
    g_assert_cmpstr(on, ==, again);
    g_assert_cmpstr(off, ==, still);
    g_assert_nonnull(strstr(on, "<qemu:device alias=\"balloon0\">"));
    g_assert_nonnull(strstr(on, "<!-- kept -->"));
    g_assert_nonnull(strstr(on, "<new-element x=\"1\"/>"));
    g_assert_nonnull(strstr(on, "a&amp;b"));
    g_assert_nonnull(strstr(on, "<stats period=\"5\"/>"));
    g_assert_null(strstr(off, "qemu:override"));
}

static void test_emulator(void)
{
    static const char without[] = "<domain type='qemu'><devices/></domain>";
    g_autoptr(GError) err = NULL;
    g_autofree char *on = hpbctl_domain_change(PLAIN, TRUE, "/a&b", &err);
    g_autofree char *again = hpbctl_domain_change(on, TRUE, "/a&b", &err);
    g_autofree char *other = hpbctl_domain_change(on, TRUE, "/c", &err);
    g_autofree char *added = hpbctl_domain_change(without, FALSE, "/c", &err);

    g_assert_no_error(err);
    g_assert_true(uses(on));
    g_assert_nonnull(strstr(on, "<emulator>/a&amp;b</emulator>"));
    g_assert_cmpstr(on, ==, again);
    g_assert_true(uses(other));
    g_assert_nonnull(strstr(other, "<emulator>/c</emulator>"));
    g_assert_null(strstr(other, "a&amp;b</emulator>"));
    g_assert_false(uses(added));
    g_assert_nonnull(strstr(added, "<emulator>/c</emulator>"));
}

/* Other overrides, of this device too, are somebody else's. */
static void test_others(void)
{
    static const char xml[] = "<domain type='qemu' " NS ">" DEVICES
        "<qemu:override><qemu:device alias='balloon0'><qemu:frontend>"
        "<qemu:property name='unit' type='unsigned' value='4194304'/>"
        "</qemu:frontend></qemu:device><qemu:device alias='net0'/>"
        "</qemu:override></domain>";
    g_autofree char *on = change(xml, TRUE);
    g_autofree char *off = change(on, FALSE);

    g_assert_nonnull(strstr(on, "4194304"));
    g_assert_nonnull(strstr(off, "4194304"));
    g_assert_nonnull(strstr(off, "net0"));
}

/* An alias of the user's, another prefix, another type, no balloon at all */
static void test_shapes(void)
{
    static const char alias[] = "<domain type='kvm'><devices><memballoon "
        "model='virtio'><alias name='ua-b'/></memballoon></devices></domain>";
    static const char prefix[] = "<domain type='kvm' xmlns:q='http://libvirt."
        "org/schemas/domain/qemu/1.0'>" DEVICES "<q:override><q:device "
        "alias='balloon0'><q:frontend><q:property name='driver' type='string' "
        "value='other'/></q:frontend></q:device></q:override></domain>";
    static const char none[] = "<domain type='kvm'><devices/></domain>";
    g_autofree char *with_alias = change(alias, TRUE);
    g_autofree char *with_prefix = change(prefix, TRUE);
    g_autofree char *added = change(none, TRUE);

    g_assert_nonnull(strstr(with_alias, "<qemu:device alias=\"ua-b\">"));
    g_assert_nonnull(strstr(with_prefix, "<q:property name=\"driver\" "
                            "type=\"string\" value=\"virtio-balloon-hp\"/>"));
    g_assert_null(strstr(with_prefix, "other"));
    g_assert_nonnull(strstr(added, "<memballoon model=\"virtio\"/>"));
}

static void test_invalid(void)
{
    static const char *const bad[] = {
        "", "nothing", "<domain type='kvm'>", "<network/>",
        "<domain type='xen'>" DEVICES "</domain>", "<domain type='kvm'/>",
        "<domain type='kvm'><devices><memballoon model='none'/></devices>"
        "</domain>",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) err = NULL;

        g_assert_null(hpbctl_domain_change(bad[i], TRUE, NULL, &err));
        g_assert_error(err, HPBCTL_ERROR, HPBCTL_ERROR_UNSUPPORTED);
    }
}

int main(int argc, char **argv)
{
    int result;

    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/hpbctl/domain/there-and-back", test_there_and_back);
    g_test_add_func("/hpbctl/domain/emulator", test_emulator);
    g_test_add_func("/hpbctl/domain/others", test_others);
    g_test_add_func("/hpbctl/domain/shapes", test_shapes);
    g_test_add_func("/hpbctl/domain/invalid", test_invalid);
    result = g_test_run();
    xmlCleanupParser();
    return result;
}
