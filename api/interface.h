/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The contract: io.privmemd.Memory as sd-varlink tables.
 *
 * interface.c holds the tables, types.def those of enums and structs, and their comments are the API documentation.
 * operations.def has one row a method, errors.def one row an error. Whoever adds a method touches interface.c,
 * operations.def and one op_…() handler in daemon/front; tests/unit/test-api.c names whatever was forgotten. */

#include <systemd/sd-varlink-idl.h>

#define PRIVMEMD_INTERFACE "io.privmemd.Memory"

extern const sd_varlink_interface vl_interface_io_privmemd_Memory;
