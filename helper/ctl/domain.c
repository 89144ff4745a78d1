/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: libvirt domain definitions that use our balloon
 *
 * Not a step of the data path. libvirt knows no device type but its own; it
 * lets a definition override properties of a device of QEMU, and the type is
 * one. So the balloon stays a memballoon of the model virtio, and an override
 * with its alias says the type. Works on text and changes nodes, not strings:
 * whatever else is there, also what libvirt does not know yet, is kept.
 *
 * Entities of a DTD are not expanded and nothing is loaded from the network or
 * a file: definitions come from anywhere.
 */
#include <string.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include "domain.h"

#define QEMU_NS "http://libvirt.org/schemas/domain/qemu/1.0"
#define DEVICE_TYPE "virtio-balloon-hp"
/* What libvirt calls a balloon that has no alias of the user's */
#define DEFAULT_ALIAS "balloon0"

typedef struct Domain {
    xmlDoc *doc;
    xmlNode *root;
    char *alias;                /* of the balloon */
    xmlNode *property;          /* the one that says the type, or NULL */
} Domain;

static const xmlChar *xml_string(const char *text)
{
    return (const xmlChar *)text;
}

static gboolean has_name(const xmlNode *node, const char *name, gboolean qemu)
{
    return node->type == XML_ELEMENT_NODE &&
           xmlStrEqual(node->name, xml_string(name)) &&
           qemu == (node->ns &&
                    xmlStrEqual(node->ns->href, xml_string(QEMU_NS)));
}

/* The next child of that name after @after (NULL: the first), or NULL */
static xmlNode *next_child(xmlNode *parent, xmlNode *after, const char *name,
                           gboolean qemu)
{
    xmlNode *node = after ? after->next : parent ? parent->children : NULL;

    while (node && !has_name(node, name, qemu)) {
        node = node->next;
    }
    return node;
}

static gboolean attribute_is(xmlNode *node, const char *name, const char *value)
{
    xmlChar *text = node ? xmlGetNoNsProp(node, xml_string(name)) : NULL;
    gboolean same = text && xmlStrEqual(text, xml_string(value));

    xmlFree(text);
    return same;
}

static char *attribute(xmlNode *node, const char *name)
{
    xmlChar *text = node ? xmlGetNoNsProp(node, xml_string(name)) : NULL;
    char *copy = g_strdup((const char *)text);

    xmlFree(text);
    return copy;
}

/* The override's frontend for the balloon, or NULL */
static xmlNode *find_frontend(const Domain *d)
{
    xmlNode *override = next_child(d->root, NULL, "override", TRUE);
    xmlNode *device = NULL;

    while (override &&
           (device = next_child(override, device, "device", TRUE))) {
        if (attribute_is(device, "alias", d->alias)) {
            return next_child(device, NULL, "frontend", TRUE);
        }
    }
    return NULL;
}

static xmlNode *find_property(const Domain *d)
{
    xmlNode *frontend = find_frontend(d), *property = NULL;

    while (frontend &&
           (property = next_child(frontend, property, "property", TRUE))) {
        if (attribute_is(property, "name", "driver")) {
            return property;
        }
    }
    return NULL;
}

static gboolean set_invalid(GError **err, const char *why)
{
    g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_UNSUPPORTED,
                "the domain's definition: %s", why);
    return FALSE;
}

static gboolean find_balloon(Domain *d, GError **err)
{
    xmlNode *devices = next_child(d->root, NULL, "devices", FALSE);
    xmlNode *balloon = next_child(devices, NULL, "memballoon", FALSE);

    if (!devices) {
        return set_invalid(err, "it has no <devices>; give the output of "
                           "'virsh dumpxml --inactive'");
    }
    if (balloon && !attribute_is(balloon, "model", "virtio") &&
        !attribute_is(balloon, "model", "virtio-non-transitional") &&
        !attribute_is(balloon, "model", "virtio-transitional")) {
        return set_invalid(err, "its <memballoon> is not of the model virtio; "
                           "change it to model='virtio', and try again");
    }
    d->alias = attribute(next_child(balloon, NULL, "alias", FALSE), "name");
    if (!d->alias) {
        d->alias = g_strdup(DEFAULT_ALIAS);
    }
    d->property = find_property(d);
    return TRUE;
}

static void domain_clear(Domain *d)
{
    xmlFreeDoc(d->doc);
    g_free(d->alias);
}

static gboolean domain_parse(Domain *d, const char *xml, GError **err)
{
    gsize length = strlen(xml);

    *d = (Domain) { 0 };
    if (length > G_MAXINT) {
        return set_invalid(err, "it is too long to be one");
    }
    d->doc = xmlReadMemory(xml, (int)length, "domain.xml", NULL,
                           XML_PARSE_NONET | XML_PARSE_NOERROR |
                           XML_PARSE_NOWARNING);
    d->root = d->doc ? xmlDocGetRootElement(d->doc) : NULL;
    if (!d->root || !has_name(d->root, "domain", FALSE)) {
        return set_invalid(err, "it is no XML with a <domain> in it; give the "
                           "output of 'virsh dumpxml --inactive'");
    }
    if (!attribute_is(d->root, "type", "kvm") &&
        !attribute_is(d->root, "type", "qemu")) {
        return set_invalid(err, "its type is neither kvm nor qemu; only QEMU "
                           "has the device");
    }
    return find_balloon(d, err);
}

/* The child of that name, made if it is not there */
static xmlNode *need_child(xmlNode *parent, xmlNs *ns, const char *name)
{
    xmlNode *child = next_child(parent, NULL, name, TRUE);

    return child ? child : xmlNewChild(parent, ns, xml_string(name), NULL);
}

static xmlNode *need_device(const Domain *d, xmlNode *override, xmlNs *ns)
{
    xmlNode *device = NULL;

    while ((device = next_child(override, device, "device", TRUE))) {
        if (attribute_is(device, "alias", d->alias)) {
            return device;
        }
    }
    device = xmlNewChild(override, ns, xml_string("device"), NULL);
    xmlNewProp(device, xml_string("alias"), xml_string(d->alias));
    return device;
}

static void enable_type(const Domain *d)
{
    xmlNs *ns = xmlSearchNsByHref(d->doc, d->root, xml_string(QEMU_NS));
    xmlNode *devices = next_child(d->root, NULL, "devices", FALSE);
    xmlNode *node = d->property;

    if (!ns) {
        ns = xmlNewNs(d->root, xml_string(QEMU_NS), xml_string("qemu"));
    }
    if (!next_child(devices, NULL, "memballoon", FALSE)) {
        node = xmlNewChild(devices, NULL, xml_string("memballoon"), NULL);
        xmlNewProp(node, xml_string("model"), xml_string("virtio"));
        node = d->property;
    }
    if (!node) {
        node = need_child(d->root, ns, "override");
        node = need_child(need_device(d, node, ns), ns, "frontend");
        node = xmlNewChild(node, ns, xml_string("property"), NULL);
        xmlNewProp(node, xml_string("name"), xml_string("driver"));
    }
    xmlSetProp(node, xml_string("type"), xml_string("string"));
    xmlSetProp(node, xml_string("value"), xml_string(DEVICE_TYPE));
}

/* Remove the property, and what is empty without it. */
static void disable_type(const Domain *d)
{
    xmlNode *node = d->property;

    while (node && node != d->root) {
        xmlNode *parent = node->parent;

        xmlUnlinkNode(node);
        xmlFreeNode(node);
        node = xmlChildElementCount(parent) ? NULL : parent;
    }
}

static gboolean emulator_is(const Domain *d, const char *path)
{
    xmlNode *devices = next_child(d->root, NULL, "devices", FALSE);
    xmlNode *node = next_child(devices, NULL, "emulator", FALSE);
    xmlChar *text = node ? xmlNodeGetContent(node) : NULL;
    gboolean same = text && xmlStrEqual(text, xml_string(path));

    xmlFree(text);
    return same;
}

static void set_emulator(const Domain *d, const char *path)
{
    xmlNode *devices = next_child(d->root, NULL, "devices", FALSE);
    xmlNode *node = next_child(devices, NULL, "emulator", FALSE);

    if (!node) {
        node = xmlNewChild(devices, NULL, xml_string("emulator"), NULL);
    }
    xmlNodeSetContent(node, NULL);
    xmlNodeAddContent(node, xml_string(path));
}

gboolean hpbctl_domain_check(const char *xml, gboolean *uses, GError **err)
{
    Domain d;
    gboolean ok = domain_parse(&d, xml, err);

    *uses = ok && attribute_is(d.property, "value", DEVICE_TYPE);
    domain_clear(&d);
    return ok;
}

char *hpbctl_domain_change(const char *xml, gboolean enable,
                           const char *emulator, GError **err)
{
    Domain d;
    char *text = NULL;

    if (domain_parse(&d, xml, err)) {
        gboolean uses = attribute_is(d.property, "value", DEVICE_TYPE);
        gboolean other = emulator && !emulator_is(&d, emulator);
        xmlChar *dumped = NULL;
        int length = 0;

        if (other) {
            set_emulator(&d, emulator);
        }
        if (uses != enable) {
            if (enable) {
                enable_type(&d);
            } else {
                disable_type(&d);
            }
        }
        if (other || uses != enable) {
            xmlDocDumpMemory(d.doc, &dumped, &length);
            text = g_strdup((const char *)dumped);
            xmlFree(dumped);
        } else {
            text = g_strdup(xml);
        }
    }
    domain_clear(&d);
    return text;
}
