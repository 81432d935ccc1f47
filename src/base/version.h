/* Versions that users see. */
#ifndef RONDO_BASE_VERSION_H
#define RONDO_BASE_VERSION_H

#define RONDO_VERSION "0.1.0"

/* The Redis whose commands, errors and protocols are followed; clients choose features by it. */
#define REDIS_VERSION_FOLLOWED "7.0.15"

#endif
