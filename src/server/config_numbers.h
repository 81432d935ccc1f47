/* Settings that are numbers, sizes or times. */
#ifndef RONDO_SERVER_CONFIG_NUMBERS_H
#define RONDO_SERVER_CONFIG_NUMBERS_H

#include "server/config.h"
#include "server/config_text.h"

/* A setting's text and where it came from, as messages say it; `where` is room for that. */
struct config_source config_source_of(const struct config *config, enum config_key key, char *where,
                                      size_t size);

/* Reads them all from their texts. BAD_REQUEST, with a sentence: one is no number or out of its range, or two do not
 * fit each other. */
MUST_CHECK enum status config_numbers(struct config *config, struct buf *why);

#endif
