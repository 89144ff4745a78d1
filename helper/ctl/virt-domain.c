/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: the domains of a libvirt connection
 *
 * Not a step of the data path. A name is what a person gave a domain, so it
 * comes before the numbers that libvirt gives; virsh looks for an id first.
 */
#include <string.h>
#include "virt.h"

void hpbctl_virt_domain_free(HpbctlVirtDomain *d)
{
    if (d) {
        virDomainFree(d->domain);
        g_free(d->name);
        g_free(d->where);
        g_free(d);
    }
}

/* What libvirt's library knows of @domain without asking; takes a reference */
static HpbctlVirtDomain *domain_new(virDomainPtr domain, gboolean active)
{
    HpbctlVirtDomain *d = g_new0(HpbctlVirtDomain, 1);
    unsigned id = virDomainGetID(domain);

    virDomainRef(domain);
    d->domain = domain;
    d->name = g_strdup(virDomainGetName(domain));
    d->where = g_strdup_printf("domain '%s'", d->name);
    d->id = active && id != (unsigned)-1 ? (int)id : -1;
    virDomainGetUUIDString(domain, d->uuid);
    return d;
}

static gboolean is_missing(void)
{
    return virGetLastErrorCode() == VIR_ERR_NO_DOMAIN;
}

/* text: name, UUID or id. domain and flag (it runs): what was found */
static int find_domain(virConnectPtr conn, HpbctlVirtJob *job)
{
    guint64 id = 0;
    gboolean is_id = g_ascii_string_to_unsigned(job->text, 10, 0, G_MAXINT, &id,
                                                NULL);
    int active;

    job->domain = virDomainLookupByName(conn, job->text);
    if (!job->domain && is_missing() && strlen(job->text) >= 32 &&
        g_uuid_string_is_valid(job->text)) {
        job->domain = virDomainLookupByUUIDString(conn, job->text);
    }
    if (!job->domain && is_missing() && is_id) {
        job->domain = virDomainLookupByID(conn, (int)id);
    }
    active = job->domain ? virDomainIsActive(job->domain) : -1;
    job->flag = active > 0;
    return active < 0 ? -1 : 0;
}

HpbctlVirtDomain *hpbctl_virt_find(HpbctlVirt *v, const char *name,
                                   GError **err)
{
    g_autoptr(HpbctlVirtJob) job = hpbctl_virt_job_new(find_domain, NULL);

    job->text = g_strdup(name);
    if (hpbctl_virt_call(v, job, hpbctl_virt_uri(v), "look for a domain",
                         err)) {
        return domain_new(job->domain, job->flag);
    }
    if (g_atomic_int_get(&job->done) && !job->lost && job->error &&
        job->error->code == VIR_ERR_NO_DOMAIN) {
        g_clear_error(err);
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_CONNECT,
                    "no domain has the name, UUID or id '%s' at %s; 'hpbctl "
                    "--connect %s list' shows which there are", name,
                    hpbctl_virt_uri(v), hpbctl_virt_uri(v));
    }
    return NULL;
}

static int list_domains(virConnectPtr conn, HpbctlVirtJob *job)
{
    return virConnectListAllDomains(conn, &job->domains, 0) < 0 ? -1 : 0;
}

static gint by_name(gconstpointer a, gconstpointer b)
{
    const HpbctlVirtDomain *const *one = a, *const *other = b;

    return strcmp((*one)->name, (*other)->name);
}

GPtrArray *hpbctl_virt_list(HpbctlVirt *v, GError **err)
{
    g_autoptr(HpbctlVirtJob) job = hpbctl_virt_job_new(list_domains, NULL);
    GPtrArray *all;

    if (!hpbctl_virt_call(v, job, hpbctl_virt_uri(v), "list domains", err)) {
        return NULL;
    }
    all = g_ptr_array_new_with_free_func(
        (GDestroyNotify)hpbctl_virt_domain_free);
    for (virDomainPtr *domain = job->domains; domain && *domain; domain++) {
        g_ptr_array_add(all, domain_new(*domain, TRUE));
    }
    g_ptr_array_sort(all, by_name);
    return all;
}

/* flag: as it runs */
static int read_definition(virConnectPtr conn G_GNUC_UNUSED, HpbctlVirtJob *job)
{
    unsigned flags = job->flag ? 0 : VIR_DOMAIN_XML_INACTIVE |
                                     VIR_DOMAIN_XML_SECURE;

    job->result = virDomainGetXMLDesc(job->domain, flags);
    return job->result ? 0 : -1;
}

char *hpbctl_virt_definition(HpbctlVirt *v, const HpbctlVirtDomain *d,
                             gboolean live, GError **err)
{
    g_autoptr(HpbctlVirtJob) job = hpbctl_virt_job_new(read_definition,
                                                       d->domain);

    job->flag = live;
    if (!hpbctl_virt_call(v, job, d->where, "read its definition", err)) {
        return NULL;
    }
    return g_strdup(job->result);
}

static int read_memory(virConnectPtr conn G_GNUC_UNUSED, HpbctlVirtJob *job)
{
    job->number = virDomainGetMaxMemory(job->domain);
    return job->number ? 0 : -1;
}

gboolean hpbctl_virt_memory(HpbctlVirt *v, const HpbctlVirtDomain *d,
                            guint64 *bytes, GError **err)
{
    g_autoptr(HpbctlVirtJob) job = hpbctl_virt_job_new(read_memory, d->domain);

    if (!hpbctl_virt_call(v, job, d->where, "read its size", err)) {
        return FALSE;
    }
    *bytes = job->number << 10;
    return TRUE;
}
