/* Base64 (RFC 4648): bytes as text where the text must be JSON or part of a URL. */
#ifndef RONDO_BASE_BASE64_H
#define RONDO_BASE_BASE64_H

#include "base/span.h"

/* Section 4: letters, '+', '/', padded with '='. */
void base64_put(struct buf *buf, struct span bytes);

/* Section 5: letters, '-', '_', without padding, so that nothing in it needs percent-encoding. */
void base64_url_put(struct buf *buf, struct span bytes);

/* Appends the bytes that either of the two wrote; padding may be there or not. MALFORMED (and nothing appended) for
 * any other text; OVERLOADED: no memory. */
MUST_CHECK enum status base64_decode(struct buf *buf, struct span text);
MUST_CHECK enum status base64_url_decode(struct buf *buf, struct span text);

#endif
