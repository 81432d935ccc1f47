/* The little JSON that answers need: strings. */
#ifndef RONDO_PROTO_JSON_H
#define RONDO_PROTO_JSON_H

#include "base/span.h"

/* Whether the bytes are well-formed UTF-8, so that a JSON string can hold them unchanged. */
bool json_is_text(struct span bytes);

/* The bytes as the inside of a JSON string, without quotes. Bytes that are not UTF-8 become U+FFFD, one for each
 * maximal part of a broken sequence (as the Unicode standard recommends), so the result is always valid JSON. */
void json_put_escaped(struct buf *buf, struct span bytes);

/* The same, with quotes. */
void json_put_string(struct buf *buf, struct span bytes);

#endif
