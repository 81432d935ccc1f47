/* Ranks that follow Zipf's law: rank k of n is drawn with probability proportional to 1 / k^theta.
 *
 * Method: rejection-inversion (Hörmann and Derflinger, "Rejection-inversion to generate variates from monotone discrete
 * distributions", ACM TOMACS 6(3), 1996): exact for every theta >= 0 and any n, without tables, in constant time. (The
 * usual shortcut of Gray et al. is exact for the first two ranks only, and must add up n terms first.) */
#ifndef RONDO_CLI_ZIPF_H
#define RONDO_CLI_ZIPF_H

#include "base/prng.h"

struct zipf {
    uint64_t count;
    double theta;
    double integral_first; /* H(1.5) - h(1) */
    double integral_last;  /* H(n + 0.5) */
    double shortcut;       /* what is this near below k is accepted without another look */
};

/* count >= 1; 0 <= theta <= 10. */
void zipf_init(struct zipf *zipf, uint64_t count, double theta);

/* A rank from 0 (the most frequent) to count - 1. */
uint64_t zipf_draw(const struct zipf *zipf, struct prng *prng);

#endif
