/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Addresses of TCP: as text, and as what is counted as one peer. */

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#define ADDRESS_TEXT_MAX 64U

typedef struct AddressKey {
        uint8_t bytes[16];
} AddressKey;

/* 127.0.0.1:8443 or [::1]:8443. */
bool address_parse(const char *text, struct sockaddr_storage *ret, socklen_t *ret_size);

/* Without the port. */
void address_print(const struct sockaddr *address, char ret[static ADDRESS_TEXT_MAX]);

/* One IPv4 address, also in IPv6's form; the first 64 bits of an IPv6 address, for any host has as many as it likes of
 * those that share them. */
AddressKey address_key(const struct sockaddr *address);

/* The same for peers that have a uid and no address. */
AddressKey address_key_of_uid(uid_t uid);
