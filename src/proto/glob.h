/* Redis's glob patterns, as in CONFIG GET and COMMAND LIST FILTERBY PATTERN. */
#ifndef RONDO_PROTO_GLOB_H
#define RONDO_PROTO_GLOB_H

#include "base/span.h"

/* Whether the whole text matches: '*' any bytes, '?' one byte, "[a-z]" and "[^a-z]" one of a set, '\' takes the
 * next byte as it is. ASCII case is ignored. At most pattern × text steps; meant for short texts. */
bool glob_match(struct span pattern, struct span text);

#endif
