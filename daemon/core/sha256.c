/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "core/sha256.h"

#include <string.h>

#define BLOCK 64U

/* The first 32 bits of the fractions of the square roots of the first 8 primes, and of the cube roots of the first 64. */
static const uint32_t initial[8] = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};
static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, unsigned n) {
        return x >> n | x << (32 - n);
}

/* 6.2.2, steps 1 to 4; v has a to h. */
static void take_block(uint32_t state[static 8], const uint8_t *bytes) {
        uint32_t w[64], v[8];

        for (size_t t = 0; t < 16; t++)
                w[t] = (uint32_t) bytes[4 * t] << 24 | (uint32_t) bytes[4 * t + 1] << 16 |
                       (uint32_t) bytes[4 * t + 2] << 8 | bytes[4 * t + 3];
        for (size_t t = 16; t < 64; t++)
                w[t] = w[t - 16] + w[t - 7] + (rotate(w[t - 15], 7) ^ rotate(w[t - 15], 18) ^ w[t - 15] >> 3) +
                       (rotate(w[t - 2], 17) ^ rotate(w[t - 2], 19) ^ w[t - 2] >> 10);
        memcpy(v, state, sizeof(v));
        for (size_t t = 0; t < 64; t++) {
                uint32_t t1 = v[7] + (rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25)) +
                              ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[t] + w[t];
                uint32_t t2 = (rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)) +
                              ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));

                memmove(v + 1, v, 7 * sizeof(v[0]));
                v[4] += t1;
                v[0] = t1 + t2;
        }
        for (size_t i = 0; i < 8; i++)
                state[i] += v[i];
        explicit_bzero(w, sizeof(w));
        explicit_bzero(v, sizeof(v));
}

static void put_big_endian(uint64_t value, size_t size, uint8_t *to) {
        for (size_t i = 0; i < size; i++)
                to[i] = (uint8_t) (value >> 8 * (size - 1 - i));
}

void sha256(const void *bytes, size_t size, uint8_t ret[static SHA256_SIZE]) {
        const uint8_t *at = bytes;
        size_t left = size, n_last;
        uint8_t last[2 * BLOCK] = {};
        uint32_t state[8];

        memcpy(state, initial, sizeof(state));
        for (; left >= BLOCK; left -= BLOCK, at += BLOCK)
                take_block(state, at);
        if (left > 0)
                memcpy(last, at, left);
        last[left] = 0x80;
        n_last = left + 1 + 8 <= BLOCK ? 1 : 2;
        put_big_endian((uint64_t) size * 8, 8, last + n_last * BLOCK - 8);
        for (size_t i = 0; i < n_last; i++)
                take_block(state, last + i * BLOCK);
        for (size_t i = 0; i < 8; i++)
                put_big_endian(state[i], 4, ret + 4 * i);
        explicit_bzero(last, sizeof(last));
        explicit_bzero(state, sizeof(state));
}
