/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp: PCI binding
 *
 * Beside the data path. Modern only, so that there is no transitional variant
 * of the type. The properties that a management reads and writes by QOM are
 * aliased, as it looks for them where it created the device.
 *
 * libvirt up to at least 11.3 looks for the statistics of a balloon by following
 * the first property of type link<virtio-balloon-pci> that it finds in the QOM
 * tree, if the device it created is not of that type itself. "virtio-balloon" is
 * such a link, to the device: the properties there are the same.
 */

#include "qemu/osdep.h"

#include "hw/qdev-properties.h"
#include "hw/virtio/virtio-balloon-hp.h"
#include "hw/virtio/virtio-pci.h"
#include "qapi/error.h"
#include "qemu/module.h"
#include "qom/object.h"

#define TYPE_VIRTIO_BALLOON_HP_PCI "virtio-balloon-hp-pci-base"
OBJECT_DECLARE_SIMPLE_TYPE(VirtIOBalloonHPPCI, VIRTIO_BALLOON_HP_PCI)

struct VirtIOBalloonHPPCI {
    VirtIOPCIProxy parent_obj;
    VirtIOBalloonHP vdev;
    Object *self;           /* target of a link, holds no reference */
};

static const Property vbhp_pci_properties[] = {
    DEFINE_PROP_BIT("ioeventfd", VirtIOPCIProxy, flags,
                    VIRTIO_PCI_FLAG_USE_IOEVENTFD_BIT, true),
    DEFINE_PROP_UINT32("vectors", VirtIOPCIProxy, nvectors,
                       DEV_NVECTORS_UNSPECIFIED),
};

static void vbhp_pci_realize(VirtIOPCIProxy *vpci_dev, Error **errp)
{
    VirtIOBalloonHPPCI *dev = VIRTIO_BALLOON_HP_PCI(vpci_dev);

    if (vpci_dev->nvectors == DEV_NVECTORS_UNSPECIFIED) {
        /* Configuration changes, and one for each queue. */
        vpci_dev->nvectors = 1 + VIRTIO_BALLOON_HP_VQ_MAX;
    }
    virtio_pci_force_virtio_1(vpci_dev);
    qdev_realize(DEVICE(&dev->vdev), BUS(&vpci_dev->bus), errp);
}

static void vbhp_pci_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioPCIClass *k = VIRTIO_PCI_CLASS(klass);
    PCIDeviceClass *pcidev_k = PCI_DEVICE_CLASS(klass);

    k->realize = vbhp_pci_realize;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    dc->desc = "Memory balloon in huge page ranges";
    pcidev_k->revision = VIRTIO_PCI_ABI_VERSION;
    pcidev_k->class_id = PCI_CLASS_OTHERS;
    device_class_set_props(dc, vbhp_pci_properties);
}

static void vbhp_pci_instance_init(Object *obj)
{
    static const char *const aliases[] = {
        "guest-stats", "guest-stats-polling-interval", "counters",
        "requested-size", "actual-size", "preferred-size", "nodes",
        "node-sizes", "memory", "grow-refused", "migration-skipped",
        "reclaim", "cache-floor", "guest-state",
        "migration-lend", "migration-lend-time", "migration-session",
        "out-ranges",
    };
    VirtIOBalloonHPPCI *dev = VIRTIO_BALLOON_HP_PCI(obj);

    virtio_instance_init_common(obj, &dev->vdev, sizeof(dev->vdev),
                                TYPE_VIRTIO_BALLOON_HP);
    for (size_t i = 0; i < G_N_ELEMENTS(aliases); i++) {
        object_property_add_alias(obj, aliases[i], OBJECT(&dev->vdev),
                                  aliases[i]);
    }
    dev->self = obj;
    object_property_add_link(obj, "virtio-balloon", "virtio-balloon-pci",
                             &dev->self, NULL, 0);
}

static const VirtioPCIDeviceTypeInfo vbhp_pci_info = {
    .base_name     = TYPE_VIRTIO_BALLOON_HP_PCI,
    .generic_name  = "virtio-balloon-hp-pci",
    .instance_size = sizeof(VirtIOBalloonHPPCI),
    .instance_init = vbhp_pci_instance_init,
    .class_init    = vbhp_pci_class_init,
};

static void vbhp_pci_register_types(void)
{
    virtio_pci_types_register(&vbhp_pci_info);
}

type_init(vbhp_pci_register_types)
