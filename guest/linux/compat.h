/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-balloon-hp: differences between the kernels this driver builds for.
 *
 * Everything that depends on the kernel's version stands here, so that the
 * other files read like in-tree code of the newest kernel. Rejected: version
 * checks where they are needed; they hide what the driver really does.
 */
#ifndef HPB_COMPAT_H
#define HPB_COMPAT_H

#include <linux/mmzone.h>
#include <linux/shrinker.h>
#include <linux/version.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
#include <kunit/visibility.h>
#else
#define VISIBLE_IF_KUNIT static
#define EXPORT_SYMBOL_IF_KUNIT(symbol)
#endif

/* Largest order the page allocator hands out; MAX_ORDER was exclusive once. */
#if defined(MAX_PAGE_ORDER)
#define HPB_MAX_ORDER MAX_PAGE_ORDER
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#define HPB_MAX_ORDER MAX_ORDER
#else
#define HPB_MAX_ORDER (MAX_ORDER - 1)
#endif

/* Shrinkers are allocated by the kernel since 6.7, and had no data before. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
struct hpb_shrinker {
	struct shrinker *shrinker;
};

static inline int
hpb_shrinker_register(struct hpb_shrinker *s,
		      unsigned long (*count)(struct shrinker *, struct shrink_control *),
		      unsigned long (*scan)(struct shrinker *, struct shrink_control *),
		      void *data, const char *name)
{
	s->shrinker = shrinker_alloc(0, "%s", name);
	if (!s->shrinker)
		return -ENOMEM;
	s->shrinker->count_objects = count;
	s->shrinker->scan_objects = scan;
	s->shrinker->private_data = data;
	shrinker_register(s->shrinker);
	return 0;
}

static inline void hpb_shrinker_unregister(struct hpb_shrinker *s)
{
	shrinker_free(s->shrinker);
}

static inline void *hpb_shrinker_data(struct shrinker *shrinker)
{
	return shrinker->private_data;
}
#else
struct hpb_shrinker {
	struct shrinker shrinker;
	void *data;
};

static inline int
hpb_shrinker_register(struct hpb_shrinker *s,
		      unsigned long (*count)(struct shrinker *, struct shrink_control *),
		      unsigned long (*scan)(struct shrinker *, struct shrink_control *),
		      void *data, const char *name)
{
	s->shrinker.count_objects = count;
	s->shrinker.scan_objects = scan;
	s->shrinker.seeks = DEFAULT_SEEKS;
	s->data = data;
	return register_shrinker(&s->shrinker, "%s", name);
}

static inline void hpb_shrinker_unregister(struct hpb_shrinker *s)
{
	unregister_shrinker(&s->shrinker);
}

static inline void *hpb_shrinker_data(struct shrinker *shrinker)
{
	return container_of(shrinker, struct hpb_shrinker, shrinker)->data;
}
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
struct virtqueue_info {
	const char *name;
	vq_callback_t *callback;
};

#define HPB_FIND_VQS_MAX 8

static inline int hpb_find_vqs(struct virtio_device *vdev, unsigned int nr,
			       struct virtqueue *vqs[],
			       struct virtqueue_info info[])
{
	vq_callback_t *callbacks[HPB_FIND_VQS_MAX];
	const char *names[HPB_FIND_VQS_MAX];
	unsigned int i;

	if (WARN_ON(nr > HPB_FIND_VQS_MAX))
		return -EINVAL;
	for (i = 0; i < nr; i++) {
		callbacks[i] = info[i].callback;
		names[i] = info[i].name;
	}
	return virtio_find_vqs(vdev, nr, vqs, callbacks, names, NULL);
}
#else
static inline int hpb_find_vqs(struct virtio_device *vdev, unsigned int nr,
			       struct virtqueue *vqs[],
			       struct virtqueue_info info[])
{
	return virtio_find_vqs(vdev, nr, vqs, info, NULL);
}
#endif

#endif /* HPB_COMPAT_H */
