/* Modules and kernels: functions `cpu_launch_<name>` of EDGE_FG_SOFTWARE_KERNELS.
 *
 * Which kernels there are and what parameters they take is read from the image, as the real
 * driver does it: from the text of PTX, or from a cubin's sections `.nv.info.<kernel>`. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "software_cuda.h"

#define MAX_PARAMETERS 32
#define NAME_BYTES 128
#define DEFAULT_SHARED_BYTES (48 << 10)
#define EIFMT_SVAL 4
#define EIATTR_KPARAM_INFO 0x17

struct function {
    struct function *next;
    char name[NAME_BYTES];
    struct launch launch;
    int sizes[MAX_PARAMETERS];
    long most_shared_bytes;
};

struct module {
    struct module *next;
    struct function *functions;
};
static struct module *modules;

static struct function *add_function(struct module *module, const char *name, size_t length)
{
    struct function *function = calloc(1, sizeof *function);
    snprintf(function->name, NAME_BYTES, "%.*s", (int)length, name);
    function->most_shared_bytes = DEFAULT_SHARED_BYTES;
    function->next = module->functions;
    module->functions = function;
    return function;
}

/* ".visible .entry name(.param .u64 first, .param .f32 second)" */
static void read_ptx(struct module *module, const char *text)
{
    while ((text = strstr(text, ".entry ")) != NULL) {
        text += strlen(".entry ");
        struct function *function = add_function(module, text, strcspn(text, " (\n"));
        const char *end = strchr(text, ')');
        if (end == NULL)
            return;
        while ((text = strstr(text, ".param .")) != NULL && text < end) {
            int bits = 0;
            text += strlen(".param .");
            if (sscanf(text, "%*[a-z]%d", &bits) == 1
                && function->launch.parameters < MAX_PARAMETERS)
                function->sizes[function->launch.parameters++] = bits / 8;
        }
        text = end;
    }
}

static void read_parameters(struct function *function, const unsigned char *at, size_t bytes)
{
    const unsigned char *end = at + bytes;
    while (at + 4 <= end) {
        unsigned format = at[0], attribute = at[1], size;
        uint16_t value, ordinal;
        uint32_t layout;
        memcpy(&value, at + 2, 2);
        at += 4;
        size = format == EIFMT_SVAL ? value : 0;
        if (size >= 12 && attribute == EIATTR_KPARAM_INFO && at + size <= end) {
            memcpy(&ordinal, at + 4, 2);
            memcpy(&layout, at + 8, 4);
            if (ordinal < MAX_PARAMETERS) {
                function->sizes[ordinal] = (int)(layout >> 18);
                if (function->launch.parameters <= ordinal)
                    function->launch.parameters = ordinal + 1;
            }
        }
        at += size;
    }
}

static void read_cubin(struct module *module, const unsigned char *image)
{
    static const char prefix[] = ".nv.info.";
    const Elf64_Ehdr *header = (const void *)image;
    const Elf64_Shdr *sections = (const void *)(image + header->e_shoff);
    const char *names = (const char *)image + sections[header->e_shstrndx].sh_offset;
    for (int i = 0; i < header->e_shnum; i++) {
        const char *name = names + sections[i].sh_name;
        if (strncmp(name, prefix, strlen(prefix)) != 0)
            continue;
        name += strlen(prefix);
        read_parameters(add_function(module, name, strlen(name)), image + sections[i].sh_offset,
                        sections[i].sh_size);
    }
}

EXPORT CUresult cuModuleLoadDataEx(void **handle, const void *image, unsigned count, int *options,
                                   void **values)
{
    GUARDED;
    CHECKED(enter_context("cuModuleLoadData"));
    int elf = memcmp(image, ELFMAG, SELFMAG) == 0;
    if (!elf && memcmp(image, "//", 2) != 0 && memcmp(image, ".version", 8) != 0) {
        for (unsigned i = 0; i + 1 < count; i++)
            if (options[i] == 5 && options[i + 1] == 6)
                snprintf(values[i], (size_t)values[i + 1], "not an image");
        return INVALID_IMAGE;
    }
    struct module *module = calloc(1, sizeof *module);
    if (elf)
        read_cubin(module, image);
    else
        read_ptx(module, image);
    module->next = modules;
    modules = module;
    counters[MODULES]++;
    *handle = module;
    return SUCCESS;
}

EXPORT CUresult cuModuleLoadData(void **handle, const void *image)
{
    return cuModuleLoadDataEx(handle, image, 0, NULL, NULL);
}

EXPORT CUresult cuModuleUnload(void *handle)
{
    GUARDED;
    CHECKED(enter_context("cuModuleUnload"));
    for (struct module **link = &modules; *link != NULL; link = &(*link)->next) {
        struct module *module = *link;
        if (module != handle)
            continue;
        *link = module->next;
        for (struct function *function = module->functions, *next; function; function = next) {
            next = function->next;
            free(function);
        }
        free(module);
        counters[MODULES]--;
        return SUCCESS;
    }
    return INVALID_HANDLE;
}

EXPORT CUresult cuModuleGetFunction(void **handle, void *owner, const char *name)
{
    GUARDED;
    CHECKED(enter_context("cuModuleGetFunction"));
    struct module *module = modules;
    while (module != NULL && module != owner)
        module = module->next;
    if (module == NULL)
        return INVALID_HANDLE;
    struct function *function = module->functions;
    while (function != NULL && strcmp(function->name, name) != 0)
        function = function->next;
    if (function == NULL)
        return NOT_FOUND;
    const char *path = getenv("EDGE_FG_SOFTWARE_KERNELS");
    void *library = path != NULL ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    char symbol[NAME_BYTES + 16];
    snprintf(symbol, sizeof symbol, "cpu_launch_%s", name);
    void *address = library != NULL ? dlsym(library, symbol) : NULL;
    if (address == NULL)
        return NOT_FOUND;
    memcpy(&function->launch.kernel, &address, sizeof address);
    *handle = function;
    return SUCCESS;
}

static struct function *find(const void *handle)
{
    for (struct module *module = modules; module != NULL; module = module->next)
        for (struct function *function = module->functions; function; function = function->next)
            if (function == handle)
                return function;
    return NULL;
}

EXPORT CUresult cuFuncSetAttribute(void *handle, int attribute, int value)
{
    GUARDED;
    CHECKED(enter_context("cuFuncSetAttribute"));
    struct function *function = find(handle);
    if (function == NULL)
        return INVALID_HANDLE;
    if (attribute != 8 || value < 0 || value > 100 << 10)
        return INVALID_VALUE;
    function->most_shared_bytes = value;
    return SUCCESS;
}

/* Deprecated; PyCUDA's prepared calls make it though they pass the block to the launch too. */
EXPORT CUresult cuFuncSetBlockShape(void *handle, int x, int y, int z)
{
    GUARDED;
    CHECKED(enter_context("cuFuncSetBlockShape"));
    return find(handle) != NULL && x > 0 && y > 0 && z > 0 ? SUCCESS : INVALID_VALUE;
}

/* PyCUDA packs the parameters into one buffer; C programs, and edge_fg, pass their addresses. */
static CUresult take_parameters(struct function *function, void **addresses, void **extra,
                                struct launch *launch)
{
    const char *packed = NULL;
    size_t bytes = 0, offset = 0;
    for (int i = 0; extra != NULL && extra[i] != NULL; i += 2) {
        if (extra[i] == (void *)1)
            packed = extra[i + 1];
        else if (extra[i] == (void *)2)
            bytes = *(size_t *)extra[i + 1];
    }
    for (int i = 0; i < launch->parameters; i++) {
        size_t size = (size_t)function->sizes[i];
        const void *source = addresses != NULL ? addresses[i] : NULL;
        if (addresses == NULL) {
            offset = (offset + size - 1) / size * size;
            if (packed == NULL || offset + size > bytes)
                return INVALID_VALUE;
            source = packed + offset;
            offset += size;
        }
        if (source == NULL)
            return INVALID_VALUE;
        memcpy(&launch->values[i], source, size);
    }
    return SUCCESS;
}

EXPORT CUresult cuLaunchKernel(void *handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                               unsigned by, unsigned bz, unsigned shared_bytes, void *stream,
                               void **addresses, void **extra)
{
    GUARDED;
    CHECKED(enter_context("cuLaunchKernel"));
    struct function *function = find(handle);
    if (function == NULL)
        return INVALID_HANDLE;
    if (gx == 0 || gy == 0 || gz == 0 || gy > 65535 || gz > 65535 || bx == 0 || by == 0 || bz == 0
        || (unsigned long)bx * by * bz > 1024 || bz > 64 || shared_bytes > function->most_shared_bytes)
        return INVALID_VALUE;
    struct launch launch = function->launch;
    memcpy(launch.grid, (unsigned[]){gx, gy, gz}, sizeof launch.grid);
    memcpy(launch.block, (unsigned[]){bx, by, bz}, sizeof launch.block);
    launch.shared_bytes = shared_bytes;
    CHECKED(take_parameters(function, addresses, extra, &launch));
    return queue_launch(stream, &launch);
}
