/* Rejection-inversion for h(x) = x^-theta, whose integral is H(x) = (x^(1 - theta) - 1) / (1 - theta), or log x for
 * theta = 1. Both are written over expm1 and log1p, which stay exact where theta is near 1. */
#include "cli/zipf.h"

#include <assert.h>
#include <math.h>

/* (e^x - 1) / x */
static double expm1_part(double x)
{
    return fabs(x) > 1e-8 ? expm1(x) / x : 1 + x / 2 * (1 + x / 3);
}

/* log(1 + x) / x */
static double log1p_part(double x)
{
    return fabs(x) > 1e-8 ? log1p(x) / x : 1 - x * (0.5 - x / 3);
}

static double weight(const struct zipf *zipf, double x)
{
    return exp(-zipf->theta * log(x));
}

static double integral(const struct zipf *zipf, double x)
{
    double log_x = log(x);
    return expm1_part((1 - zipf->theta) * log_x) * log_x;
}

static double integral_inverse(const struct zipf *zipf, double y)
{
    double t = y * (1 - zipf->theta);
    if (t < -1) /* rounding, at the far end of the range */
        t = -1;
    return exp(log1p_part(t) * y);
}

void zipf_init(struct zipf *zipf, uint64_t count, double theta)
{
    assert(count >= 1);
    assert(theta >= 0);
    *zipf = (struct zipf){.count = count, .theta = theta};
    zipf->integral_first = integral(zipf, 1.5) - 1;
    zipf->integral_last = integral(zipf, (double)count + 0.5);
    zipf->shortcut = 2 - integral_inverse(zipf, integral(zipf, 2.5) - weight(zipf, 2));
}

uint64_t zipf_draw(const struct zipf *zipf, struct prng *prng)
{
    for (;;) {
        /* 53 bits, in (0, 1]. */
        double unit = ((double)(prng_u64(prng) >> 11) + 1) * 0x1p-53;
        double y = zipf->integral_last + unit * (zipf->integral_first - zipf->integral_last);
        double x = integral_inverse(zipf, y);
        double k = floor(x + 0.5);
        if (k < 1)
            k = 1;
        else if (k > (double)zipf->count)
            k = (double)zipf->count;
        if (k - x <= zipf->shortcut || y >= integral(zipf, k + 0.5) - weight(zipf, k))
            return (uint64_t)k - 1;
    }
}
