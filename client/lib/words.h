/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The enums of privmem.h, as the API spells them: arrays by value, with NULL for what is not sent. */

#define N_WORDS(words) (sizeof(words) / sizeof((words)[0]))

extern const char *const exit_policy_words[3];
extern const char *const alias_policy_words[3];
extern const char *const vm_type_words[7];
extern const char *const kind_words[4];
extern const char *const numa_policy_words[4];
extern const char *const access_words[2];
extern const char *const outcome_words[3];

/* A value that no word stands for becomes the word "invalid", which privmemd refuses by name. */
#define word_of(words, value) word_at(words, N_WORDS(words), (unsigned) (value))
const char *word_at(const char *const *words, unsigned n, unsigned value);

/* The value of a word; -1: none, or word is NULL. */
#define value_of(words, word) value_in(words, N_WORDS(words), word)
int value_in(const char *const *words, unsigned n, const char *word);
