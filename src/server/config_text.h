/* Texts of settings made into values: sizes, durations, addresses, lists. Each error is one sentence that
 * shows the right form; `where` names the setting as the user wrote it ("--resp", "rondod.ini:3: resp"). */
#ifndef RONDO_SERVER_CONFIG_TEXT_H
#define RONDO_SERVER_CONFIG_TEXT_H

#include "base/span.h"
#include "edge/log_thread.h"
#include "edge/say.h"
#include "ring/ring.h"
#include "shard/shard.h"

struct config_source {
    const char *where;
    const char *text;
};

/* A number within [min, max]. */
MUST_CHECK enum status config_text_number(struct config_source source, uint64_t min, uint64_t max,
                                          uint64_t *number, struct buf *why);

/* Bytes with an optional K, M, G (also KB, KiB, ...; powers of 1024). */
MUST_CHECK enum status config_text_bytes(struct config_source source, uint64_t min, uint64_t max,
                                         uint64_t *bytes, struct buf *why);

/* Milliseconds, or a number with ms, s, m, h or d. */
MUST_CHECK enum status config_text_duration(struct config_source source, uint64_t min_ms, uint64_t max_ms,
                                            uint64_t *ms, struct buf *why);

/* yes/no, true/false, on/off, 1/0. */
MUST_CHECK enum status config_text_bool(struct config_source source, bool *value, struct buf *why);

/* always, os or interval:MS. */
MUST_CHECK enum status config_text_durability(struct config_source source, enum durability_mode *mode,
                                              uint32_t *interval_ms, struct buf *why);

MUST_CHECK enum status config_text_level(struct config_source source, enum say_level *level, struct buf *why);

/* logfmt or json. */
MUST_CHECK enum status config_text_shape(struct config_source source, enum say_shape *shape, struct buf *why);

/* "HOST:PORT", "[IPV6]:PORT"; checks only. */
MUST_CHECK enum status config_text_address(struct config_source source, struct buf *why);

/* The host of a checked address, without brackets. */
struct span config_address_host(const char *address);
struct span config_address_port(const char *address);

/* Whether only this machine can reach it: 127.0.0.0/8, ::1, localhost. */
bool config_address_loopback(const char *address);

/* 0.0.0.0 or ::. */
bool config_address_any(const char *address);

/* Takes "name=HOST:PORT,name=HOST:PORT" apart, in place: `list` is changed and the members point into it.
 * *members is malloc's. */
MUST_CHECK enum status config_text_members(struct config_source source, char *list,
                                           struct ring_member **members, uint16_t *count, struct buf *why);

/* The index of the name nearest to `given` among count names, or count when none is near. */
size_t config_text_nearest(const char *given, const char *const *names, size_t count);

#endif
