/* Suspicion timeouts in fixed point. */
#include "gossip/suspicion.h"

#include <assert.h>

#define Q16_ONE (UINT64_C(1) << 16)
#define Q16_LOG10_OF_2 UINT64_C(19728) /* 0.30103 */

/* log2 of a number >= 1, in 1/65536: the integer part is the position of the highest bit, each further bit of the
 * fraction is found by squaring. */
static uint64_t log2_q16(uint32_t number)
{
    assert(number >= 1);
    uint64_t integer = 0;
    while (number >> (integer + 1) != 0)
        integer++;
    uint64_t mantissa = ((uint64_t)number << 31) >> integer; /* 1 .. 2, in 1/2^31 */
    uint64_t log = integer;
    for (int i = 0; i < 16; i++) {
        mantissa = (mantissa * mantissa) >> 31;
        uint64_t bit = mantissa >> 32;
        mantissa >>= bit;
        log = log << 1 | bit;
    }
    return log;
}

uint64_t suspicion_min_ms(uint32_t factor, uint32_t nodes, uint64_t probe_interval_ms)
{
    uint64_t scale = (log2_q16(nodes) * Q16_LOG10_OF_2) >> 16;
    if (scale < Q16_ONE)
        scale = Q16_ONE;
    return (factor * probe_interval_ms * scale) >> 16;
}

void suspicion_start(struct suspicion *suspicion, const struct suspicion_options *options)
{
    assert(options->confirmations <= SUSPICION_CONFIRMATIONS_MAX);
    assert(options->min_ms <= options->max_ms);
    *suspicion = (struct suspicion){
        .started_ms = options->now_ms,
        .min_ms = options->min_ms,
        .max_ms = options->max_ms,
        .confirmations = options->confirmations,
        .accuser_count = 1,
        .accusers = {options->accuser},
    };
}

bool suspicion_confirm(struct suspicion *suspicion, uint64_t accuser)
{
    if (suspicion->accuser_count > suspicion->confirmations)
        return false;
    for (uint8_t i = 0; i < suspicion->accuser_count; i++) {
        if (suspicion->accusers[i] == accuser)
            return false;
    }
    suspicion->accusers[suspicion->accuser_count++] = accuser;
    return true;
}

uint64_t suspicion_deadline_ms(const struct suspicion *suspicion)
{
    uint8_t confirmed = (uint8_t)(suspicion->accuser_count - 1);
    if (confirmed >= suspicion->confirmations)
        return suspicion->started_ms + suspicion->min_ms;
    uint64_t part = (suspicion->max_ms - suspicion->min_ms) * log2_q16(confirmed + 1u) /
                    log2_q16(suspicion->confirmations + 1u);
    return suspicion->started_ms + suspicion->max_ms - part;
}

void suspicion_extend(struct suspicion *suspicion, uint64_t duration_ms)
{
    suspicion->started_ms += duration_ms;
}
