/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-balloon-hp: tracepoints, /sys/kernel/tracing/events/virtio_balloon_hp.
 *
 * They follow a change of the requested size through the data path: target,
 * request, answer, blocks, stop. Sizes are bytes, so that a trace can be read
 * without knowing the size of a block.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM virtio_balloon_hp

#if !defined(HPB_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define HPB_TRACE_H

#include <linux/tracepoint.h>
#include "balloon_hp.h"

TRACE_DEFINE_ENUM(HPB_STOP_NONE);
TRACE_DEFINE_ENUM(HPB_STOP_NO_BLOCKS);
TRACE_DEFINE_ENUM(HPB_STOP_FLOOR);
TRACE_DEFINE_ENUM(HPB_STOP_REFUSED);
TRACE_DEFINE_ENUM(HPB_STOP_HOST);
TRACE_DEFINE_ENUM(HPB_STOP_NOMEM);
TRACE_DEFINE_ENUM(HPB_STOP_OOM);
TRACE_DEFINE_ENUM(HPB_STOP_DEVICE);
TRACE_DEFINE_ENUM(HPB_DOWN);
TRACE_DEFINE_ENUM(HPB_RUNNING);
TRACE_DEFINE_ENUM(HPB_UNUSABLE);
TRACE_DEFINE_ENUM(HPB_BROKEN);
TRACE_DEFINE_ENUM(HPB_GONE);

#define show_hpb_stop(stop) __print_symbolic(stop,	\
	{ HPB_STOP_NONE,	"none" },		\
	{ HPB_STOP_NO_BLOCKS,	"no-blocks" },		\
	{ HPB_STOP_FLOOR,	"floor" },		\
	{ HPB_STOP_REFUSED,	"refused" },		\
	{ HPB_STOP_HOST,	"host" },		\
	{ HPB_STOP_NOMEM,	"nomem" },		\
	{ HPB_STOP_OOM,		"oom" },		\
	{ HPB_STOP_DEVICE,	"device" })

#define show_hpb_state(state) __print_symbolic(state,	\
	{ HPB_DOWN,	"down" },			\
	{ HPB_RUNNING,	"running" },			\
	{ HPB_UNUSABLE,	"unusable" },			\
	{ HPB_BROKEN,	"broken" },			\
	{ HPB_GONE,	"gone" })

TRACE_EVENT(hpb_target,
	TP_PROTO(int dev, u64 requested, u64 held),
	TP_ARGS(dev, requested, held),
	TP_STRUCT__entry(
		__field(int, dev)
		__field(u64, requested)
		__field(u64, held)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->requested = requested;
		__entry->held = held;
	),
	TP_printk("virtio%d requested=%llu held=%llu", __entry->dev,
		  __entry->requested, __entry->held)
);

TRACE_EVENT(hpb_request,
	TP_PROTO(int dev, u16 type, unsigned int ranges, u64 bytes),
	TP_ARGS(dev, type, ranges, bytes),
	TP_STRUCT__entry(
		__field(int, dev)
		__field(u16, type)
		__field(unsigned int, ranges)
		__field(u64, bytes)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->type = type;
		__entry->ranges = ranges;
		__entry->bytes = bytes;
	),
	TP_printk("virtio%d type=%u ranges=%u bytes=%llu", __entry->dev,
		  __entry->type, __entry->ranges, __entry->bytes)
);

TRACE_EVENT(hpb_answer,
	TP_PROTO(int dev, u16 type, u16 status, u32 exceptions, u64 done,
		 u64 failed),
	TP_ARGS(dev, type, status, exceptions, done, failed),
	TP_STRUCT__entry(
		__field(int, dev)
		__field(u16, type)
		__field(u16, status)
		__field(u32, exceptions)
		__field(u64, done)
		__field(u64, failed)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->type = type;
		__entry->status = status;
		__entry->exceptions = exceptions;
		__entry->done = done;
		__entry->failed = failed;
	),
	TP_printk("virtio%d type=%u status=%u exceptions=%u done=%llu failed=%llu",
		  __entry->dev, __entry->type, __entry->status,
		  __entry->exceptions, __entry->done, __entry->failed)
);

DECLARE_EVENT_CLASS(hpb_blocks,
	TP_PROTO(int dev, unsigned int ranges, u64 bytes),
	TP_ARGS(dev, ranges, bytes),
	TP_STRUCT__entry(
		__field(int, dev)
		__field(unsigned int, ranges)
		__field(u64, bytes)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->ranges = ranges;
		__entry->bytes = bytes;
	),
	TP_printk("virtio%d ranges=%u bytes=%llu", __entry->dev,
		  __entry->ranges, __entry->bytes)
);

DEFINE_EVENT(hpb_blocks, hpb_taken,
	TP_PROTO(int dev, unsigned int ranges, u64 bytes),
	TP_ARGS(dev, ranges, bytes));

DEFINE_EVENT(hpb_blocks, hpb_returned,
	TP_PROTO(int dev, unsigned int ranges, u64 bytes),
	TP_ARGS(dev, ranges, bytes));

TRACE_EVENT(hpb_emptied,
	TP_PROTO(int dev, u64 bytes, u64 moved, u64 cheapest),
	TP_ARGS(dev, bytes, moved, cheapest),
	TP_STRUCT__entry(
		__field(int, dev)
		__field(u64, bytes)
		__field(u64, moved)
		__field(u64, cheapest)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->bytes = bytes;
		__entry->moved = moved;
		__entry->cheapest = cheapest;
	),
	TP_printk("virtio%d bytes=%llu moved=%llu cheapest=%llu", __entry->dev,
		  __entry->bytes, __entry->moved, __entry->cheapest)
);

TRACE_EVENT(hpb_stop,
	TP_PROTO(int dev, int reason, u64 requested, u64 held,
		 unsigned int delay_ms),
	TP_ARGS(dev, reason, requested, held, delay_ms),
	TP_STRUCT__entry(
		__field(int, dev)
		__field(int, reason)
		__field(u64, requested)
		__field(u64, held)
		__field(unsigned int, delay_ms)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->reason = reason;
		__entry->requested = requested;
		__entry->held = held;
		__entry->delay_ms = delay_ms;
	),
	TP_printk("virtio%d reason=%s requested=%llu held=%llu retry_ms=%u",
		  __entry->dev, show_hpb_stop(__entry->reason),
		  __entry->requested, __entry->held, __entry->delay_ms)
);

TRACE_EVENT(hpb_state,
	TP_PROTO(int dev, int from, int to),
	TP_ARGS(dev, from, to),
	TP_STRUCT__entry(
		__field(int, dev)
		__field(int, from)
		__field(int, to)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->from = from;
		__entry->to = to;
	),
	TP_printk("virtio%d %s -> %s", __entry->dev, show_hpb_state(__entry->from),
		  show_hpb_state(__entry->to))
);

#endif /* HPB_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
