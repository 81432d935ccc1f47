/* Effects: carried out in order, right after the step that emitted them. */
#ifndef RONDO_EDGE_PERFORM_H
#define RONDO_EDGE_PERFORM_H

struct loop;

/* Carries out and clears the loop's effects. Steps nothing. */
void perform_effects(struct loop *loop);

#endif
