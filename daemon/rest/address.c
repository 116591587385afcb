/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <string.h>

#define PREFIX_BYTES 8U

static bool split(const char *text, char host[static ADDRESS_TEXT_MAX], const char **ret_port) {
        const char *start = text, *colon = strrchr(text, ':'), *end = colon;

        if (!colon || !colon[1])
                return false;
        if (text[0] == '[') {
                start++;
                end--;
                if (*end != ']')
                        return false;
        } else if (strchr(text, ':') != colon) {
                return false;
        }
        if (end <= start || (size_t) (end - start) >= ADDRESS_TEXT_MAX)
                return false;
        memcpy(host, start, (size_t) (end - start));
        host[end - start] = 0;
        *ret_port = colon + 1;
        return true;
}

bool address_parse(const char *text, struct sockaddr_storage *ret, socklen_t *ret_size) {
        const struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
        char host[ADDRESS_TEXT_MAX];
        struct addrinfo *found;
        const char *port;

        if (!split(text, host, &port) || strspn(port, "0123456789") != strlen(port) ||
            getaddrinfo(host, port, &hints, &found) != 0)
                return false;
        memcpy(ret, found->ai_addr, found->ai_addrlen);
        *ret_size = found->ai_addrlen;
        freeaddrinfo(found);
        return true;
}

void address_print(const struct sockaddr *address, char ret[static ADDRESS_TEXT_MAX]) {
        const void *bytes = address->sa_family == AF_INET6 ?
                                    (const void *) &((const struct sockaddr_in6 *) address)->sin6_addr :
                                    &((const struct sockaddr_in *) address)->sin_addr;

        if ((address->sa_family != AF_INET && address->sa_family != AF_INET6) ||
            !inet_ntop(address->sa_family, bytes, ret, ADDRESS_TEXT_MAX))
                strcpy(ret, "unknown");
}

AddressKey address_key(const struct sockaddr *address) {
        AddressKey key = { .bytes = { [10] = 0xff, [11] = 0xff } };

        if (address->sa_family == AF_INET) {
                memcpy(&key.bytes[12], &((const struct sockaddr_in *) address)->sin_addr, 4);
        } else if (address->sa_family == AF_INET6) {
                const struct in6_addr *in6 = &((const struct sockaddr_in6 *) address)->sin6_addr;
                bool is_mapped = IN6_IS_ADDR_V4MAPPED(in6);

                key = (AddressKey) {};
                memcpy(key.bytes, in6, is_mapped ? sizeof(*in6) : PREFIX_BYTES);
        }
        return key;
}

/* It starts as the address of a group does, which is nobody's. */
AddressKey address_key_of_uid(uid_t uid) {
        AddressKey key = { .bytes = { 0xff } };

        memcpy(&key.bytes[sizeof(key.bytes) - sizeof(uid)], &uid, sizeof(uid));
        return key;
}
