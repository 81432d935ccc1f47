/* The memtable's memory: pages of cells of one size, and blocks for rows that no cell is large enough for. */
#include "store/memtable_internal.h"

/* A page is about this part of the budget, within these bounds: with little memory the pages of a few sizes, of which
 * the last is half empty, must not be all of it. */
#define PAGE_BUDGET_DIVISOR 512u
#define PAGE_SHIFT_MIN 10u
#define PAGE_SHIFT_MAX 16u

/* A cell takes at most this part of its page, and no more than CELL_BYTES_MAX: beyond that, what the C library keeps
 * beside a block is little. */
#define PAGE_CELLS_MIN 8u
#define CELL_BYTES_MAX 8192u

/* Classes: 0 is for pointers; the next are multiples of CELL_UNIT up to CELL_STEPPED_MAX; then there are
 * CELL_STEPS for each doubling. */
#define CLASS_LARGE 0u
#define CELL_STEPPED_MAX 128u
#define CELL_STEPS 16u
#define CELL_STEPPED_SHIFT 7u
#define CELL_STEPS_SHIFT 4u

_Static_assert(CELL_STEPPED_MAX == CELL_STEPS * CELL_UNIT && CELL_STEPPED_MAX == 1u << CELL_STEPPED_SHIFT,
               "the classes meet");
_Static_assert(CELL_STEPPED_MAX / CELL_UNIT + 6 * CELL_STEPS + 1 == CELL_CLASSES &&
                   CELL_STEPPED_MAX << 6 == CELL_BYTES_MAX,
               "the last class is that of the largest cell");
_Static_assert((1u << PAGE_SHIFT_MAX) / CELL_UNIT < UINT16_MAX, "a cell's number + 1 fits 16 bits");
_Static_assert(sizeof(void *) == CELL_UNIT, "a pointer fills the smallest cell");

/* A free cell's bytes behind a row's head are poisoned, and all of a page that is not carved. */
#if defined(__SANITIZE_ADDRESS__)
#define POISONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISONS 1
#endif
#endif
#ifdef POISONS
/* From sanitizer/asan_interface.h. */
void __asan_poison_memory_region(void const volatile *addr, size_t size);
void __asan_unpoison_memory_region(void const volatile *addr, size_t size);
#define poison(at, size) __asan_poison_memory_region(at, size)
#define unpoison(at, size) __asan_unpoison_memory_region(at, size)
#else
#define poison(at, size) ((void)(at), (void)(size))
#define unpoison(at, size) ((void)(at), (void)(size))
#endif

/* ---- sizes ---------------------------------------------------------------------------------------------- */

static size_t page_bytes(const struct cells *cells)
{
    return (size_t)1 << cells->page_shift;
}

static size_t cell_bytes_max(const struct cells *cells)
{
    size_t bytes = page_bytes(cells) / PAGE_CELLS_MIN;
    return bytes < CELL_BYTES_MAX ? bytes : CELL_BYTES_MAX;
}

static uint32_t class_of(const struct cells *cells, size_t size)
{
    if (size > cell_bytes_max(cells))
        return CLASS_LARGE;
    if (size <= CELL_STEPPED_MAX)
        return (uint32_t)((size + CELL_UNIT - 1) / CELL_UNIT);
    uint32_t doubling = 63 - (uint32_t)__builtin_clzll(size - 1);
    uint32_t step = (uint32_t)((size - 1) >> (doubling - CELL_STEPS_SHIFT)) & (CELL_STEPS - 1);
    return (doubling - CELL_STEPPED_SHIFT + 1) * CELL_STEPS + step + 1;
}

static size_t class_bytes(uint32_t class)
{
    if (class == CLASS_LARGE)
        return CELL_UNIT;
    if (class <= CELL_STEPS)
        return (size_t) class * CELL_UNIT;
    uint32_t doubling = (class - 1) / CELL_STEPS - 1 + CELL_STEPPED_SHIFT;
    size_t step = (class - 1) % CELL_STEPS + 1;
    return ((size_t)1 << doubling) + (step << (doubling - CELL_STEPS_SHIFT));
}

static uint32_t class_cells(const struct cells *cells, uint32_t class)
{
    return (uint32_t)(page_bytes(cells) / class_bytes(class));
}

uint64_t memtable_bytes_of(const struct memtable *memtable, size_t key_size, size_t record_size)
{
    size_t size = row_size(key_size, record_size);
    uint32_t class = class_of(&memtable->cells, size);
    return class_bytes(class) + (class == CLASS_LARGE ? block_bytes(size) : 0);
}

uint64_t memtable_row_bytes(const struct memtable *memtable, const struct row *row)
{
    return memtable_bytes_of(memtable, row->key_size, row->record_size);
}

bool memtable_cell_same(const struct memtable *memtable, size_t held, size_t size)
{
    uint32_t class = class_of(&memtable->cells, size);
    return held == size || (class != CLASS_LARGE && class_of(&memtable->cells, held) == class);
}

/* ---- pages ---------------------------------------------------------------------------------------------- */

enum status memtable_cells_init(struct memtable *memtable)
{
    struct cells *cells = &memtable->cells;
    cells->page_shift = PAGE_SHIFT_MIN;
    while (cells->page_shift < PAGE_SHIFT_MAX &&
           memtable->budget_bytes / PAGE_BUDGET_DIVISOR >= page_bytes(cells) * 2)
        cells->page_shift++;
    cells->cell_shift = (uint8_t)(cells->page_shift - 3);
    cells->page_count = 1;
    return STATUS_OK;
}

static void list_add(struct cells *cells, uint32_t page)
{
    struct cell_page *added = &cells->pages[page];
    struct cell_class *class = &cells->classes[added->class];
    added->previous = 0;
    added->next = class->partial;
    if (class->partial != 0)
        cells->pages[class->partial].previous = page;
    class->partial = page;
}

static void list_take(struct cells *cells, uint32_t page)
{
    const struct cell_page *taken = &cells->pages[page];
    if (taken->previous != 0)
        cells->pages[taken->previous].next = taken->next;
    else
        cells->classes[taken->class].partial = taken->next;
    if (taken->next != 0)
        cells->pages[taken->next].previous = taken->previous;
}

static size_t numbers_bytes(uint32_t capacity)
{
    return capacity * (sizeof(uintptr_t) + sizeof(struct cell_page));
}

static uint32_t numbers_more(const struct cells *cells)
{
    return cells->page_capacity == 0 ? 64 : cells->page_capacity * 2;
}

/* Room for one more page's number. */
static bool numbers_grow(struct memtable *memtable)
{
    struct cells *cells = &memtable->cells;
    if (cells->numbers_free != 0 || cells->page_count < cells->page_capacity)
        return true;
    if (cells->page_capacity >> (32 - cells->cell_shift) != 0)
        return false; /* a name has no more bits */
    uint32_t capacity = numbers_more(cells);
    uintptr_t *bases = block_get(memtable, numbers_bytes(capacity), true);
    if (bases == NULL)
        return false;
    struct cell_page *pages = (struct cell_page *)(bases + capacity);
    if (cells->page_capacity > 0) {
        memcpy(bases, cells->bases, cells->page_count * sizeof *bases);
        memcpy(pages, cells->pages, cells->page_count * sizeof *pages);
        block_put(memtable, cells->bases, numbers_bytes(cells->page_capacity));
    }
    cells->bases = bases;
    cells->pages = pages;
    cells->page_capacity = capacity;
    return true;
}

static void page_free(struct memtable *memtable, uintptr_t base)
{
    unpoison((void *)base, page_bytes(&memtable->cells));
    block_put(memtable, (void *)base, page_bytes(&memtable->cells));
}

static uint32_t page_new(struct memtable *memtable, uint32_t class)
{
    struct cells *cells = &memtable->cells;
    if (!numbers_grow(memtable))
        return 0;
    uintptr_t base = cells->spare;
    cells->spare = 0;
    if (base == 0)
        base = (uintptr_t)block_get(memtable, page_bytes(cells), false);
    if (base == 0)
        return 0;
    uint32_t page = cells->numbers_free;
    if (page != 0)
        cells->numbers_free = cells->pages[page].next;
    else
        page = cells->page_count++;
    cells->bases[page] = base | (class == CLASS_LARGE);
    cells->pages[page] = (struct cell_page){.class = (uint8_t) class};
    poison((void *)base, page_bytes(cells));
    cells->classes[class].free_cells += class_cells(cells, class);
    cells->bytes_free += class_cells(cells, class) * class_bytes(class);
    list_add(cells, page);
    return page;
}

/* One empty page is kept: a lone row that comes and goes would have a page allocated each time. */
static void page_put(struct memtable *memtable, uint32_t page)
{
    struct cells *cells = &memtable->cells;
    uint32_t class = cells->pages[page].class;
    assert(cells->pages[page].used == 0);
    list_take(cells, page);
    cells->classes[class].free_cells -= class_cells(cells, class);
    cells->bytes_free -= class_cells(cells, class) * class_bytes(class);
    uintptr_t base = cells->bases[page] & ~(uintptr_t)1;
    cells->bases[page] = 0;
    cells->pages[page] = (struct cell_page){.next = cells->numbers_free};
    cells->numbers_free = page;
    if (cells->spare == 0)
        cells->spare = base;
    else
        page_free(memtable, base);
}

bool memtable_spare_drop(struct memtable *memtable)
{
    struct cells *cells = &memtable->cells;
    if (cells->spare == 0)
        return false;
    page_free(memtable, cells->spare);
    cells->spare = 0;
    return true;
}

/* ---- cells ---------------------------------------------------------------------------------------------- */

row_ref memtable_page_ref(const struct memtable *memtable, uint32_t page, uint32_t cell)
{
    const struct cells *cells = &memtable->cells;
    size_t at = cell * class_bytes(cells->pages[page].class) / CELL_UNIT;
    return page << cells->cell_shift | (uint32_t)at;
}

static void *cell_at(const struct cells *cells, uint32_t page, uint32_t cell)
{
    return (void *)((cells->bases[page] & ~(uintptr_t)1) + cell * class_bytes(cells->pages[page].class));
}

uint32_t memtable_page_cells(const struct memtable *memtable, uint32_t page)
{
    return memtable->cells.bases[page] == 0 ? 0 : memtable->cells.pages[page].carved;
}

/* A free cell holds the number of the next one + 1: a row of no flags in `next`, a pointer made odd. */
static bool cell_free(const struct cells *cells, uint32_t page, uint32_t cell)
{
    const void *at = cell_at(cells, page, cell);
    if (cells->pages[page].class != CLASS_LARGE)
        return ((const struct row *)at)->flags == 0;
    return (*(const uintptr_t *)at & 1) != 0;
}

struct row *memtable_page_row(const struct memtable *memtable, uint32_t page, uint32_t cell)
{
    const struct cells *cells = &memtable->cells;
    if (cell_free(cells, page, cell))
        return NULL;
    void *at = cell_at(cells, page, cell);
    return cells->pages[page].class == CLASS_LARGE ? *(struct row **)at : at;
}

static void cell_set_free(struct cells *cells, uint32_t page, uint32_t cell)
{
    struct cell_page *held = &cells->pages[page];
    void *at = cell_at(cells, page, cell);
    if (held->class == CLASS_LARGE) {
        *(uintptr_t *)at = (uintptr_t)held->free_first << 1 | 1;
    } else {
        ((struct row *)at)->next = held->free_first;
        ((struct row *)at)->flags = 0;
    }
    held->free_first = (uint16_t)(cell + 1);
    if (held->class != CLASS_LARGE)
        poison((uint8_t *)at + sizeof(struct row), class_bytes(held->class) - sizeof(struct row));
}

uint64_t memtable_cell_cost(const struct memtable *memtable, size_t size)
{
    const struct cells *cells = &memtable->cells;
    uint32_t class = class_of(cells, size);
    uint64_t cost = class == CLASS_LARGE ? block_bytes(size) : 0;
    if (cells->classes[class].free_cells > 0)
        return cost;
    if (cells->spare == 0)
        cost += block_bytes(page_bytes(cells));
    if (cells->numbers_free == 0 && cells->page_count >= cells->page_capacity)
        cost += numbers_bytes(numbers_more(cells));
    return cost;
}

/* A free cell of the class; 0 without memory. */
static row_ref cell_take(struct memtable *memtable, uint32_t class)
{
    struct cells *cells = &memtable->cells;
    uint32_t page = cells->classes[class].partial;
    if (page == 0 && (page = page_new(memtable, class)) == 0)
        return 0;
    struct cell_page *held = &cells->pages[page];
    uint32_t cell = held->free_first != 0 ? held->free_first - 1u : held->carved++;
    if (held->free_first != 0) {
        const void *at = cell_at(cells, page, cell);
        held->free_first = class == CLASS_LARGE ? (uint16_t)(*(const uintptr_t *)at >> 1)
                                                : (uint16_t)((const struct row *)at)->next;
    }
    unpoison(cell_at(cells, page, cell), class_bytes(class));
    held->used++;
    cells->classes[class].free_cells--;
    cells->bytes_free -= class_bytes(class);
    if (held->used == class_cells(cells, class))
        list_take(cells, page);
    return memtable_page_ref(memtable, page, cell);
}

static void cell_give(struct memtable *memtable, row_ref ref)
{
    struct cells *cells = &memtable->cells;
    uint32_t page = ref >> cells->cell_shift;
    struct cell_page *held = &cells->pages[page];
    uint32_t class = held->class;
    uint32_t cell =
        (ref & ((UINT32_C(1) << cells->cell_shift) - 1)) * CELL_UNIT / (uint32_t)class_bytes(class);
    assert(held->used > 0);
    if (held->used == class_cells(cells, class))
        list_add(cells, page);
    cell_set_free(cells, page, cell);
    held->used--;
    cells->classes[class].free_cells++;
    cells->bytes_free += class_bytes(class);
    if (held->used == 0)
        page_put(memtable, page);
}

row_ref memtable_cell_get(struct memtable *memtable, size_t size)
{
    uint32_t class = class_of(&memtable->cells, size);
    if (class != CLASS_LARGE)
        return cell_take(memtable, class);
    struct row *row = block_get(memtable, size, false);
    if (row == NULL)
        return 0;
    row_ref ref = cell_take(memtable, class);
    if (ref == 0) {
        block_put(memtable, row, size);
        return 0;
    }
    const struct cells *cells = &memtable->cells;
    size_t at = (size_t)(ref & ((UINT32_C(1) << cells->cell_shift) - 1)) * CELL_UNIT;
    *(struct row **)(cells->bases[ref >> cells->cell_shift] - 1 + at) = row;
    return ref;
}

void memtable_cell_put(struct memtable *memtable, row_ref ref)
{
    const struct cells *cells = &memtable->cells;
    if (cells->pages[ref >> cells->cell_shift].class == CLASS_LARGE) {
        struct row *row = row_at(memtable, ref);
        block_put(memtable, row, row_size(row->key_size, row->record_size));
    }
    cell_give(memtable, ref);
}

void memtable_cells_free(struct memtable *memtable)
{
    struct cells *cells = &memtable->cells;
    for (uint32_t page = 1; page < cells->page_count; page++) {
        if (cells->bases[page] == 0)
            continue;
        uint32_t carved = cells->pages[page].class == CLASS_LARGE ? cells->pages[page].carved : 0;
        for (uint32_t cell = 0; cell < carved; cell++) {
            struct row *row = memtable_page_row(memtable, page, cell);
            if (row != NULL)
                block_put(memtable, row, row_size(row->key_size, row->record_size));
        }
        page_free(memtable, cells->bases[page] & ~(uintptr_t)1);
    }
    (void)memtable_spare_drop(memtable);
    if (cells->page_capacity > 0)
        block_put(memtable, cells->bases, numbers_bytes(cells->page_capacity));
}

/* ---- moving --------------------------------------------------------------------------------------------- */

static bool page_movable(const struct memtable *memtable, uint32_t page, const struct row *pinned)
{
    const struct cells *cells = &memtable->cells;
    const struct cell_page *held = &cells->pages[page];
    uint64_t free_here = class_cells(cells, held->class) - held->used;
    if (cells->classes[held->class].free_cells - free_here < held->used)
        return false;
    for (uint32_t cell = 0; cell < held->carved; cell++) {
        const struct row *row = memtable_page_row(memtable, page, cell);
        if (row != NULL && (row == pinned || (row->flags & ROW_RETIRED) != 0 || row_frozen(memtable, row)))
            return false;
    }
    return true;
}

/* The row, which is not frozen, gets another name, and unless it is large another place. */
static void row_move(struct memtable *memtable, row_ref from, row_ref to)
{
    struct row *row = row_at(memtable, from);
    row_ref *link = memtable_link_of(memtable, row);
    struct row *moved = row;
    const struct cells *cells = &memtable->cells;
    if (cells->pages[to >> cells->cell_shift].class == CLASS_LARGE) {
        size_t at = (size_t)(to & ((UINT32_C(1) << cells->cell_shift) - 1)) * CELL_UNIT;
        *(struct row **)(cells->bases[to >> cells->cell_shift] - 1 + at) = row;
    } else {
        moved = row_at(memtable, to);
        memcpy(moved, row, offsetof(struct row, bytes) + row->key_size + row->record_size);
    }
    *link = to;
    if (row_dirty(moved))
        *queue_place(&memtable->dirty, moved) = moved;
}

uint32_t memtable_page_vacate(struct memtable *memtable, uint32_t page, const struct row *pinned)
{
    struct cells *cells = &memtable->cells;
    struct cell_page *held = &cells->pages[page];
    uint32_t moved = held->used;
    if (!page_movable(memtable, page, pinned))
        return 0;
    /* Not among those that cells are taken of meanwhile. */
    if (held->used < class_cells(cells, held->class))
        list_take(cells, page);
    for (uint32_t cell = 0; held->used > 0; cell++) {
        if (cell_free(cells, page, cell))
            continue;
        row_ref to = cell_take(memtable, held->class);
        assert(to != 0);
        row_move(memtable, memtable_page_ref(memtable, page, cell), to);
        cell_set_free(cells, page, cell);
        held->used--;
        cells->classes[held->class].free_cells++;
        cells->bytes_free += class_bytes(held->class);
    }
    list_add(cells, page);
    page_put(memtable, page);
    return moved;
}
