/* Files: the few operations that the node needs, each with its error put into words. */
#include "edge/files.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum status files_status(int error)
{
    switch (error) {
    case ENOSPC:
    case EDQUOT:
        return STATUS_DISK_FULL;
    case ENOENT:
        return STATUS_NOT_FOUND;
    case ENOMEM:
        return STATUS_OVERLOADED;
    default:
        return STATUS_IO_ERROR;
    }
}

/* What the user can do about an errno, or "". */
static const char *files_advice(int error)
{
    switch (error) {
    case ENOSPC:
    case EDQUOT:
        return "; make room there, or choose another directory with --data";
    case EACCES:
    case EPERM:
        return "; give this user the right to write there, or choose another directory with --data";
    case EROFS:
        return "; the file system is read-only: choose another directory with --data";
    case EMFILE:
    case ENFILE:
        return "; raise the limit of open files (ulimit -n)";
    default:
        return "";
    }
}

enum status files_fail(struct buf *why, const char *action, const char *path, int error)
{
    if (why != NULL) {
        char text[256];
        const char *reason = strerror_r(error, text, sizeof(text));
        buf_append_format(why, "cannot %s %s: %s%s", action, path, reason, files_advice(error));
    }
    return files_status(error);
}

char *files_join(const char *directory, const char *name)
{
    size_t size = strlen(directory) + 1 + strlen(name) + 1;
    char *path = malloc(size);
    if (path == NULL)
        abort();
    (void)snprintf(path, size, "%s/%s", directory, name);
    return path;
}

/* The directory that holds the last part of the path, in malloc's memory. */
static char *files_parent(const char *path)
{
    char *parent = strdup(path);
    if (parent == NULL)
        abort();
    size_t size = strlen(parent);
    while (size > 1 && parent[size - 1] == '/')
        size--;
    while (size > 0 && parent[size - 1] != '/')
        size--;
    while (size > 1 && parent[size - 1] == '/')
        size--;
    if (size == 0) {
        parent[0] = '.'; /* a path has at least one byte */
        size = 1;
    }
    parent[size] = '\0';
    return parent;
}

enum status files_sync_directory(const char *path, struct buf *why)
{
    int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0)
        return files_fail(why, "open", path, errno);
    int error = fsync(descriptor) != 0 ? errno : 0;
    (void)close(descriptor);
    return error != 0 ? files_fail(why, "sync", path, error) : STATUS_OK;
}

/* Makes one directory whose parent exists. */
static enum status files_make_one(const char *path, bool *made, struct buf *why)
{
    *made = mkdir(path, 0777) == 0;
    if (!*made) {
        int error = errno;
        struct stat stat_of;
        if (stat(path, &stat_of) == 0 && S_ISDIR(stat_of.st_mode))
            return STATUS_OK;
        return files_fail(why, "make the directory", path, error == EEXIST ? ENOTDIR : error);
    }
    char *parent = files_parent(path);
    enum status status = files_sync_directory(parent, why);
    free(parent);
    return status;
}

enum status files_make_directory(const char *path, bool *created, struct buf *why)
{
    assert(path[0] != '\0');
    char *part = strdup(path);
    if (part == NULL)
        abort();
    bool made = false;
    enum status status = STATUS_OK;
    for (char *at = part + 1; status == STATUS_OK; at++) {
        if (*at != '/' && *at != '\0')
            continue;
        bool last = *at == '\0';
        *at = '\0';
        status = files_make_one(part, &made, why);
        if (last)
            break;
        *at = '/';
    }
    free(part);
    if (created != NULL)
        *created = made;
    return status;
}

enum status files_read(const char *path, size_t max, struct buf *bytes, struct buf *why)
{
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return files_fail(why, "open", path, errno);
    enum status status = STATUS_OK;
    size_t size = 0;
    for (;;) {
        char block[16 << 10];
        ssize_t got = read(descriptor, block, sizeof(block));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            status = files_fail(why, "read", path, errno);
        if (got <= 0)
            break;
        size += (size_t)got;
        if (size > max) {
            if (why != NULL)
                buf_append_format(why, "%s is larger than the %zu bytes it may have", path, max);
            status = STATUS_TOO_LARGE;
            break;
        }
        buf_append(bytes, block, (size_t)got);
    }
    (void)close(descriptor);
    if (status == STATUS_OK && bytes->failed)
        status = STATUS_OVERLOADED;
    return status;
}

int files_write_at(int descriptor, const void *data, size_t size, off_t offset)
{
    const uint8_t *at = data;
    while (size > 0) {
        ssize_t put = pwrite(descriptor, at, size, offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return errno;
        if (put == 0)
            return EIO;
        at += put;
        size -= (size_t)put;
        offset += put;
    }
    return 0;
}

enum status files_replace(const char *path, struct span bytes, struct buf *why)
{
    size_t name_size = strlen(path) + sizeof(".tmp");
    char *temporary = malloc(name_size);
    if (temporary == NULL)
        return STATUS_OVERLOADED;
    (void)snprintf(temporary, name_size, "%s.tmp", path);

    enum status status = STATUS_OK;
    int descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor < 0) {
        status = files_fail(why, "write", temporary, errno);
        free(temporary);
        return status;
    }
    int error = files_write_at(descriptor, bytes.data, bytes.size, 0);
    if (error == 0 && fsync(descriptor) != 0)
        error = errno;
    if (close(descriptor) != 0 && error == 0)
        error = errno;
    if (error == 0 && rename(temporary, path) != 0)
        error = errno;
    if (error != 0) {
        status = files_fail(why, "write", path, error);
        (void)unlink(temporary);
    } else {
        char *parent = files_parent(path);
        status = files_sync_directory(parent, why);
        free(parent);
    }
    free(temporary);
    return status;
}

enum status files_lock(const char *path, int *descriptor, long *holder, struct buf *why)
{
    if (holder != NULL)
        *holder = 0;
    int opened = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (opened < 0)
        return files_fail(why, "write", path, errno);
    char text[32] = "";
    if (flock(opened, LOCK_EX | LOCK_NB) != 0) {
        int error = errno;
        ssize_t got = pread(opened, text, sizeof(text) - 1, 0);
        (void)close(opened);
        if (error != EWOULDBLOCK)
            return files_fail(why, "lock", path, error);
        if (got > 0 && holder != NULL)
            *holder = strtol(text, NULL, 10);
        return STATUS_BAD_REQUEST;
    }
    int size = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    int error = ftruncate(opened, 0) != 0 ? errno : files_write_at(opened, text, (size_t)size, 0);
    if (error != 0) {
        (void)close(opened);
        return files_fail(why, "write", path, error);
    }
    *descriptor = opened;
    return STATUS_OK;
}

enum status files_empty_directory(const char *path, struct buf *why)
{
    DIR *directory = opendir(path);
    if (directory == NULL)
        return errno == ENOENT ? STATUS_OK : files_fail(why, "read", path, errno);
    enum status status = STATUS_OK;
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        if (entry->d_name[0] == '.')
            continue;
        char *file = files_join(path, entry->d_name);
        struct stat stat_of;
        if (lstat(file, &stat_of) == 0 && !S_ISDIR(stat_of.st_mode) && unlink(file) != 0)
            status = files_fail(why, "remove", file, errno);
        free(file);
    }
    (void)closedir(directory);
    return status;
}

/* ---- numbered segment files ----------------------------------------------------------------------------- */

#define SEGMENT_NAME_DIGITS 12

char *segment_file_path(const char *directory, uint64_t number)
{
    char name[32];
    (void)snprintf(name, sizeof(name), "%0*llu.log", SEGMENT_NAME_DIGITS, (unsigned long long)number);
    return files_join(directory, name);
}

uint64_t segment_file_number(const char *name)
{
    uint64_t number = 0;
    if (strlen(name) != SEGMENT_NAME_DIGITS + 4 || strcmp(name + SEGMENT_NAME_DIGITS, ".log") != 0 ||
        span_parse_u64(span_of(name, SEGMENT_NAME_DIGITS), &number) != STATUS_OK)
        return 0;
    return number;
}

/* Remembers an open file in place of the oldest. */
static void segment_keep(struct segment_files *files, uint64_t number, int descriptor)
{
    size_t oldest = 0;
    for (size_t i = 1; i < SEGMENT_FILES_OPEN_MAX; i++) {
        if (files->open[i].number < files->open[oldest].number)
            oldest = i;
    }
    if (files->open[oldest].number != 0)
        (void)close(files->open[oldest].descriptor);
    files->open[oldest].number = number;
    files->open[oldest].descriptor = descriptor;
}

static void segment_forget(struct segment_files *files, uint64_t number)
{
    for (size_t i = 0; i < SEGMENT_FILES_OPEN_MAX; i++) {
        if (files->open[i].number == number && number != 0) {
            (void)close(files->open[i].descriptor);
            files->open[i].number = 0;
        }
    }
}

int segment_files_get(struct segment_files *files, uint64_t number)
{
    for (size_t i = 0; i < SEGMENT_FILES_OPEN_MAX; i++) {
        if (files->open[i].number == number)
            return files->open[i].descriptor;
    }
    char *path = segment_file_path(files->directory, number);
    int descriptor = open(path, O_WRONLY | O_CLOEXEC);
    int error = errno;
    free(path);
    if (descriptor >= 0)
        segment_keep(files, number, descriptor);
    errno = error;
    return descriptor;
}

/* The directory's sync, as an errno. */
static int segment_sync_names(const struct segment_files *files)
{
    return files_sync_directory(files->directory, NULL) == STATUS_OK ? 0 : EIO;
}

int segment_files_create(struct segment_files *files, uint64_t number, uint64_t size)
{
    char *path = segment_file_path(files->directory, number);
    int error = 0;
    int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor < 0) {
        error = errno;
    } else {
        error = posix_fallocate(descriptor, 0, (off_t)size);
        if (error == 0 && fsync(descriptor) != 0)
            error = errno;
        if (error == 0)
            error = segment_sync_names(files);
        if (error == 0) {
            segment_keep(files, number, descriptor);
        } else {
            (void)close(descriptor);
            (void)unlink(path);
        }
    }
    free(path);
    return error;
}

int segment_files_rename(struct segment_files *files, uint64_t number_old, uint64_t number)
{
    char *path_old = segment_file_path(files->directory, number_old);
    char *path = segment_file_path(files->directory, number);
    segment_forget(files, number_old);
    int error = rename(path_old, path) != 0 ? errno : segment_sync_names(files);
    free(path_old);
    free(path);
    return error;
}

int segment_files_remove(struct segment_files *files, uint64_t number)
{
    char *path = segment_file_path(files->directory, number);
    segment_forget(files, number);
    int error = unlink(path) != 0 && errno != ENOENT ? errno : segment_sync_names(files);
    free(path);
    return error;
}

void segment_files_close(struct segment_files *files)
{
    for (size_t i = 0; i < SEGMENT_FILES_OPEN_MAX; i++) {
        if (files->open[i].number != 0)
            (void)close(files->open[i].descriptor);
        files->open[i].number = 0;
    }
}

/* ---- chance --------------------------------------------------------------------------------------------- */

uint64_t files_random(void)
{
    uint64_t number = 0;
    while (number == 0) {
        ssize_t got = getrandom(&number, sizeof(number), 0);
        if (got == (ssize_t)sizeof(number))
            continue;
        if (got >= 0 || errno != EINTR)
            abort();
        number = 0;
    }
    return number;
}
