/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit suites of the driver: what every test begins and ends with.
 *
 * Time is simulated (UML time travel): while nothing can run, the clock jumps
 * to the next timer. msleep(n) therefore means "everything that can happen in
 * n ms has happened", and costs nothing.
 */
#ifndef HP_TEST_H
#define HP_TEST_H

#include <kunit/test.h>
#include <linux/delay.h>

#include "balloon_hp.h"
#include "hp_device.h"

#define HP_MIB(n)	((u64)(n) << 20)
#define HP_PAGES(bytes)	((unsigned long)((bytes) >> PAGE_SHIFT))

/* Longest that anything the driver owes may take. */
#define HP_PATIENCE	(90 * HZ)

/**
 * struct hp_fixture - test->priv
 * @dev:     the device, if one is plugged in
 * @forgive: bit n: offences against DRV-n are what the test wants
 * @not_out: the driver may ask for units back that are not out
 * @managed: pages that the page allocator managed before the test
 * @offline: pages marked PageOffline before the test
 * @free:    free pages before the test
 */
struct hp_fixture {
	struct hp_dev *dev;
	u32 forgive;
	bool not_out;
	unsigned long managed;
	unsigned long offline;
	unsigned long free;
};

/*
 * init and exit of every suite. exit unplugs the device, fails the test for
 * each offence the device has noted, and for memory that did not come back.
 */
int hp_test_init(struct kunit *test);
void hp_test_exit(struct kunit *test);

/* Plugs the test's device in; a driver must bind to it, and does nothing yet. */
struct hp_dev *hp_start(struct kunit *test, const struct hp_params *params);

/* The same, without looking for a driver. */
struct hp_dev *hp_plug(struct kunit *test, const struct hp_params *params);

/* The driver's own structure: for reasons and counters, never to change it. */
static inline struct hpb *hp_driver(struct hp_dev *dev)
{
	return dev->vdev.priv;
}

/* Fails the test unless @cond comes true; the device wakes who waits. */
#define HP_WAIT(dev, cond) do {						\
	bool came = wait_event_timeout((dev)->wq, cond, HP_PATIENCE);	\
									\
	KUNIT_ASSERT_TRUE_MSG((dev)->test, came, "never came: %s", #cond); \
} while (0)

/*
 * Waits until @bytes are out, lets the driver finish, and checks the books:
 * exactly the units that are out are PageOffline and unmanaged.
 */
void hp_expect_out(struct hp_dev *dev, u64 bytes);

/* Checks the books of what is out now. */
void hp_expect_books(struct hp_dev *dev);

/* Times that work items of the driver have run since the suite began. */
unsigned int hp_worker_runs(void);

/*
 * A suite, for KUnit's suite_init and suite_exit: counts the driver's work.
 */
int hp_suite_init(struct kunit_suite *suite);
void hp_suite_exit(struct kunit_suite *suite);

#define HP_SUITE(suite_name, cases)					\
	static struct kunit_suite suite_name = {			\
		.name = #suite_name,					\
		.suite_init = hp_suite_init,				\
		.suite_exit = hp_suite_exit,				\
		.init = hp_test_init,					\
		.exit = hp_test_exit,					\
		.test_cases = cases,					\
	};								\
	kunit_test_suite(suite_name)

/* Verdicts for hp_params.decide that many tests share */
void hp_hold_all(struct hp_dev *dev, struct hp_request *req);
void hp_hold_inflate(struct hp_dev *dev, struct hp_request *req);
void hp_hold_deflate(struct hp_dev *dev, struct hp_request *req);

/* Sets hp_dev.decide between two requests; NULL: everything is done. */
void hp_set_decide(struct hp_dev *dev, hp_decide_fn *decide);

#endif /* HP_TEST_H */
