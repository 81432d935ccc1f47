/* The configuration as CONFIG GET shows it. */
#ifndef RONDO_SERVER_SETTINGS_H
#define RONDO_SERVER_SETTINGS_H

#include "server/config.h"

#define SETTINGS_MAX 80

/* Texts of numbers and addresses that the list points to. */
#define SETTINGS_TEXT_BYTES_MAX ((size_t)16 << 10)

/* The list, under Redis's names where Redis has the setting, and under rondod's own. It points into itself and into the
 * configuration, and must not move. */
struct settings {
    struct node_setting list[SETTINGS_MAX];
    uint32_t count;
    size_t text_size;
    char text[SETTINGS_TEXT_BYTES_MAX];
};

void settings_make(struct settings *settings, const struct config *config);

#endif
