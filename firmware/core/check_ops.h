/* The shape rule of every op: the C twin of Op.infer in edgekit/graph/ops. */
#ifndef EK_CHECK_OPS_H
#define EK_CHECK_OPS_H

#include "program.h"

/* Check op `number` of a program whose tensors were checked: its operands and results are there, have the right types, shapes and
 * storage, and its attributes are in range, so that its kernel needs no checks.
 * UNSUPPORTED_OP where the opcode is unknown, else BAD_PROGRAM. */
ek_status ek_check_op(const ek_program *program, uint32_t number, ek_error *error);

#endif
