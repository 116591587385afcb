/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

typedef struct KnownError {
        const char *name;
        int code;
        const char *sentence;
} KnownError;

static const KnownError known_errors[] = {
#define ERROR(name, code, status, sentence) { "io.privmemd.Memory." #name, code, sentence },
#include "api/errors.def"
        { "org.varlink.service.InterfaceNotFound", EOPNOTSUPP, "What listens there does not speak this interface." },
        { "org.varlink.service.MethodNotFound", EOPNOTSUPP, "This privmemd does not have the method." },
        { "org.varlink.service.MethodNotImplemented", EOPNOTSUPP, "This privmemd does not have the method." },
        { "org.varlink.service.InvalidParameter", EINVAL, NULL /* names the parameter */ },
        { "org.varlink.service.PermissionDenied", EACCES, "The caller may not do this." },
        { "org.varlink.service.ExpectedMore", EPROTO, "The answer is a stream, and the call did not ask for one." },
        { "io.systemd.System", EIO, NULL /* carries an errno */ },
        { "io.systemd.Disconnected", ECONNRESET, "privmemd gave the call up." },
        { "io.systemd.TimedOut", ETIMEDOUT, "The call took too long." },
        { "io.systemd.Protocol", EPROTO, "privmemd could not make sense of the call." },
        { "io.systemd.InteractiveAuthenticationRequired", EACCES,
          "The caller may not do this without being asked for a password." },
};

void error_done(Error *e) {
        free(e->name);
        free(e->message);
        free(e->json);
        *e = (Error) {};
}

/* On failure *ret is NULL, musl's vasprintf does not say. */
static void format_string(char **ret, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void format_string(char **ret, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        if (vasprintf(ret, format, arguments) < 0)
                *ret = NULL;
        va_end(arguments);
}

int error_set(Error *e, int code, const char *format, ...) {
        va_list arguments;
        char *message;

        /* The arguments may be of the error that is replaced. */
        va_start(arguments, format);
        if (vasprintf(&message, format, arguments) < 0)
                message = NULL;
        va_end(arguments);

        error_done(e);
        e->message = message;
        return code;
}

static int code_of_system(json_object *parameters) {
        uint64_t code;

        if (!json_get_uint64(parameters, "errno", &code) || code == 0 || code > 4095)
                return EIO;
        return (int) code;
}

static void describe(Error *e, const KnownError *known, int code, json_object *parameters) {
        const char *message = json_get_string(parameters, "message");
        const char *parameter = json_get_string(parameters, "parameter");

        if (message)
                e->message = strdup(message);
        else if (known && known->sentence)
                e->message = strdup(known->sentence);
        else if (code == EINVAL && parameter)
                format_string(&e->message, "The parameter \"%s\" is missing, unknown or of the wrong type.",
                              parameter);
        else if (known)
                format_string(&e->message, "%s.", strerror(code));
        else
                format_string(&e->message, "privmemd answered with the error %s.", e->name);
}

int error_set_reply(Error *e, const char *name, json_object *parameters) {
        const KnownError *known = NULL;
        const char *json = parameters ? json_text(parameters, NULL) : NULL;
        int code = EREMOTEIO;

        for (size_t i = 0; i < sizeof(known_errors) / sizeof(known_errors[0]) && !known; i++)
                if (strcmp(known_errors[i].name, name) == 0)
                        known = &known_errors[i];

        if (known)
                code = strcmp(name, "io.systemd.System") == 0 ? code_of_system(parameters) : known->code;

        error_done(e);
        e->name = strdup(name);
        e->json = json ? strdup(json) : NULL;
        describe(e, known, code, parameters);
        return -code;
}
