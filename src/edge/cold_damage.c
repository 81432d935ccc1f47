/* DIR/cold-damaged. */
#include "edge/cold_damage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "edge/files.h"

#define WHY_BYTES_MAX ((size_t)8 << 10)

static const char note_text[] =
    "The tables in cold/ are damaged. The next start rebuilds them from the other replicas.\n";

void cold_damage_init(struct cold_damage *damage, const char *directory)
{
    *damage = (struct cold_damage){.directory = files_join(directory, ""),
                                   .path = files_join(directory, "cold-damaged")};
    damage->directory[strlen(directory)] = '\0';
    pthread_mutex_init(&damage->lock, NULL);
}

void cold_damage_free(struct cold_damage *damage)
{
    pthread_mutex_destroy(&damage->lock);
    free(damage->directory);
    free(damage->path);
}

static void tell(const struct cold_damage *damage, enum say_level level, struct buf *text)
{
    buf_put_u8(text, 0);
    if (damage->say != NULL && !text->failed)
        damage->say(damage->context, level, (const char *)text->data);
    buf_clear(text);
}

static void tell_found(const struct cold_damage *damage, struct buf *text)
{
    if (damage->alone)
        buf_append_format(
            text,
            "the cold tier of this node, %s/cold, is DAMAGED, and it cannot be rebuilt: no other node has a "
            "replica; what can be read is served, the rest answers errors: put back a backup of %s",
            damage->directory, damage->directory);
    else
        buf_append_format(
            text,
            "the cold tier of this node, %s/cold, is DAMAGED; its slots are repaired from the other "
            "replicas; "
            "restart the node when convenient, once no node has quarantined slots: it then rebuilds the "
            "whole cold tier from them",
            damage->directory);
    tell(damage, SAY_ERROR, text);
}

void cold_damage_found(void *context)
{
    struct cold_damage *damage = context;
    struct alloc alloc;
    struct buf text;
    alloc_init(&alloc, WHY_BYTES_MAX);
    buf_init(&text, &alloc);
    pthread_mutex_lock(&damage->lock);
    bool first = !damage->told;
    damage->told = true;
    if (first)
        tell_found(damage, &text);
    if (!damage->noted && !damage->alone) {
        damage->noted = files_replace(damage->path, span_of_text(note_text), &text) == STATUS_OK;
        if (!damage->noted && first)
            tell(damage, SAY_ERROR, &text);
    }
    pthread_mutex_unlock(&damage->lock);
    buf_free(&text);
}

bool cold_damage_noted(const struct cold_damage *damage)
{
    return access(damage->path, F_OK) == 0;
}

enum status cold_damage_discard(struct cold_damage *damage, struct buf *why)
{
    char *cold = files_join(damage->directory, "cold");
    enum status status = files_make_directory(cold, NULL, why);
    if (status == STATUS_OK)
        status = files_empty_directory(cold, why);
    if (status == STATUS_OK)
        status = files_sync_directory(cold, why);
    if (status == STATUS_OK && unlink(damage->path) != 0 && errno != ENOENT)
        status = files_fail(why, "remove", damage->path, errno);
    if (status == STATUS_OK)
        status = files_sync_directory(damage->directory, why);
    free(cold);
    return status;
}

enum status cold_damage_retire(const struct cold_damage *damage, struct buf *why)
{
    char name[64];
    char *quarantine = files_join(damage->directory, "quarantine");
    char *cold = files_join(damage->directory, "cold");
    (void)snprintf(name, sizeof(name), "cold-%lld", (long long)time(NULL));
    char *kept = files_join(quarantine, name);
    enum status status = files_make_directory(quarantine, NULL, why);
    if (status == STATUS_OK && rename(cold, kept) != 0)
        status = files_fail(why, "move the cold tier to", kept, errno);
    if (status == STATUS_OK)
        status = files_sync_directory(quarantine, why);
    free(kept);
    free(cold);
    free(quarantine);
    return status;
}
