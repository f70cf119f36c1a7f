/* A stand-in for libnvidia-ml.so.1, so that what talks to NVIDIA's driver is tested without a GPU.
 *
 * It answers the queries that jupyterhub_bkai.gpus.nvidia makes, from a description in the file that the environment
 * variable MOCK_NVML names; the file is read again whenever the library goes from closed to open. Structures are laid
 * out as nvidia-ml-py declares them. It only answers: nothing can be created or set.
 *
 * The description has one fact per line; "#" begins a comment. Lines before the first "gpu" are the machine's.
 *
 *   driver TEXT | nvml TEXT | cuda NUMBER       versions (cuda as 13000)
 *   without FUNCTION                            the library does as if it had no such function for any card (code 13)
 *   fault FUNCTION CODE                         that function answers CODE; below a gpu, for that gpu only.
 *                                               The function "*" is every one, from getting the handle on.
 *   gpu UUID                                    a card; what follows is its
 *     name TEXT
 *     memory TOTAL RESERVED USED                MiB
 *     cores NUMBER | capability MAJOR MINOR
 *     numa NODE
 *     mig NOW LATER
 *     profile ENUMERATOR ID SLICES SMS MIB COUNT SIZE STARTS NAME      STARTS as 0,2,4
 *     instance ID PROFILE-ID START COMPUTE-ID UUID
 *     process PID MIB INSTANCE COMPUTE-ID       MIB -1: not told; both ids -1: on the whole card
 *     recovery ACTION
 *     remapped CORRECTABLE UNCORRECTABLE PENDING FAILED
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
       FUNCTION_NOT_FOUND = 13, VERSION_MISMATCH = 25, UNKNOWN = 999 };
enum { GPUS = 16, PROFILES = 20, INSTANCES = 8, PROCESSES = 64, FAULTS = 32, STARTS = 16 };
enum { FIELD_RECOVERY_ACTION = 230, TYPE_UNSIGNED_INT = 1 };
#define MIB (1024ULL * 1024)

typedef unsigned uint;
typedef unsigned long long ull;
typedef struct { char function[64]; int code; } Fault;
typedef struct { uint enumerator, id, slices, sms, mib, count, size, starts[STARTS], places; char name[64]; } Profile;
typedef struct Gpu Gpu;
typedef struct { Gpu *gpu; Profile *profile; uint id, profile_id, start, compute; char uuid[96]; } Instance;
typedef struct { uint pid; long long mib; int instance, compute; } Process;

/* A handle is the address of a Gpu, or of an Instance of one: `holder` tells which card an address lies in. */
struct Gpu {
    uint index, cores, capability[2], mig[2], recovery, remapped[4];
    int numa;
    ull memory[3];
    char uuid[96], name[96];
    uint profiles, instances, processes, faults;
    Profile profile[PROFILES];
    Instance instance[INSTANCES];
    Process process[PROCESSES];
    Fault fault[FAULTS];
};

static Gpu gpu[GPUS];
static Fault fault[FAULTS];
static uint gpus, faults, references, cuda;
static char driver[80], version[80];

/* -- reading the description ------------------------------------------------------------------------------------- */

static int bad(uint number, const char *line) {
    fprintf(stderr, "mock_nvml: line %u of the description is not understood: %s\n", number, line);
    return UNKNOWN;
}

static int add_fault(Fault *list, uint *count, const char *function, int code) {
    if (*count == FAULTS) return 0;
    snprintf(list[*count].function, sizeof list[*count].function, "%s", function);
    list[(*count)++].code = code;
    return 1;
}

static int parse_profile(Gpu *card, const char *rest) {
    Profile *p = &card->profile[card->profiles];
    char starts[128], *next = starts;
    if (card->profiles == PROFILES ||
        sscanf(rest, "%u %u %u %u %u %u %u %127s %63s", &p->enumerator, &p->id, &p->slices, &p->sms, &p->mib,
               &p->count, &p->size, starts, p->name) != 9)
        return 0;
    for (char *part; (part = strsep(&next, ",")) && p->places < STARTS;) p->starts[p->places++] = (uint)atoi(part);
    card->profiles++;
    return 1;
}

static int parse_instance(Gpu *card, const char *rest) {
    Instance *i = &card->instance[card->instances];
    if (card->instances == INSTANCES ||
        sscanf(rest, "%u %u %u %u %95s", &i->id, &i->profile_id, &i->start, &i->compute, i->uuid) != 5)
        return 0;
    i->gpu = card;
    for (uint k = 0; k < card->profiles; k++)
        if (card->profile[k].id == i->profile_id) i->profile = &card->profile[k];
    card->instances++;
    return i->profile != NULL;
}

static int parse_process(Gpu *card, const char *rest) {
    Process *p = &card->process[card->processes];
    if (card->processes == PROCESSES || sscanf(rest, "%u %lld %d %d", &p->pid, &p->mib, &p->instance, &p->compute) != 4)
        return 0;
    card->processes++;
    return 1;
}

static int parse_gpu(Gpu *card, const char *key, const char *rest) {
    char function[64];
    int code;
    if (!strcmp(key, "name")) return snprintf(card->name, sizeof card->name, "%s", rest) > 0;
    if (!strcmp(key, "memory"))
        return sscanf(rest, "%llu %llu %llu", &card->memory[0], &card->memory[1], &card->memory[2]) == 3;
    if (!strcmp(key, "cores")) return sscanf(rest, "%u", &card->cores) == 1;
    if (!strcmp(key, "capability")) return sscanf(rest, "%u %u", &card->capability[0], &card->capability[1]) == 2;
    if (!strcmp(key, "numa")) return sscanf(rest, "%d", &card->numa) == 1;
    if (!strcmp(key, "mig")) return sscanf(rest, "%u %u", &card->mig[0], &card->mig[1]) == 2;
    if (!strcmp(key, "recovery")) return sscanf(rest, "%u", &card->recovery) == 1;
    if (!strcmp(key, "remapped"))
        return sscanf(rest, "%u %u %u %u", &card->remapped[0], &card->remapped[1], &card->remapped[2],
                      &card->remapped[3]) == 4;
    if (!strcmp(key, "profile")) return parse_profile(card, rest);
    if (!strcmp(key, "instance")) return parse_instance(card, rest);
    if (!strcmp(key, "process")) return parse_process(card, rest);
    if (!strcmp(key, "fault"))
        return sscanf(rest, "%63s %d", function, &code) == 2 && add_fault(card->fault, &card->faults, function, code);
    return 0;
}

static int parse_machine(const char *key, const char *rest) {
    char function[64];
    int code;
    if (!strcmp(key, "driver")) return snprintf(driver, sizeof driver, "%s", rest) > 0;
    if (!strcmp(key, "nvml")) return snprintf(version, sizeof version, "%s", rest) > 0;
    if (!strcmp(key, "cuda")) return sscanf(rest, "%u", &cuda) == 1;
    if (!strcmp(key, "without")) return add_fault(fault, &faults, rest, FUNCTION_NOT_FOUND);
    if (!strcmp(key, "fault"))
        return sscanf(rest, "%63s %d", function, &code) == 2 && add_fault(fault, &faults, function, code);
    return 0;
}

static int parse(FILE *file) {
    char line[512], key[32];
    Gpu *card = NULL;
    int used;
    for (uint number = 1; fgets(line, sizeof line, file); number++) {
        line[strcspn(line, "#\n")] = 0;
        if (sscanf(line, "%31s%n", key, &used) != 1) continue;
        char *rest = line + used + strspn(line + used, " ");
        if (!strcmp(key, "gpu")) {
            if (gpus == GPUS) return bad(number, line);
            card = &gpu[gpus];
            card->index = gpus++;
            card->numa = -1;
            snprintf(card->uuid, sizeof card->uuid, "%s", rest);
        } else if (!(card ? parse_gpu(card, key, rest) : parse_machine(key, rest))) {
            return bad(number, line);
        }
    }
    return SUCCESS;
}

static int load(void) {
    const char *path = getenv("MOCK_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    gpus = faults = cuda = 0;
    memset(gpu, 0, sizeof gpu);
    if (!file) {
        fprintf(stderr, "mock_nvml: MOCK_NVML does not name a file that can be read\n");
        return UNKNOWN;
    }
    int code = parse(file);
    fclose(file);
    return code;
}

/* -- answering --------------------------------------------------------------------------------------------------- */

static int faulty(const Fault *list, uint count, const char *function) {
    for (uint i = 0; i < count; i++)
        if (!strcmp(list[i].function, function) || !strcmp(list[i].function, "*")) return list[i].code;
    return SUCCESS;
}

/* The card a handle belongs to; NULL for an address that was never a handle. */
static Gpu *holder(const void *handle) {
    size_t offset = (size_t)((const char *)handle - (const char *)gpu);
    return (const char *)handle >= (const char *)gpu && offset < sizeof gpu && offset / sizeof *gpu < gpus
               ? &gpu[offset / sizeof *gpu]
               : NULL;
}

static int is_instance(const void *handle) { return handle != holder(handle); }

static int enter(const char *function) { return references ? faulty(fault, faults, function) : UNINITIALIZED; }

static int enter_card(const char *function, const void *handle) {
    int code = enter(function);
    Gpu *card = holder(handle);
    if (code) return code;
    return card ? faulty(card->fault, card->faults, function) : INVALID_ARGUMENT;
}

#define ENTER() do { int code_ = enter(__func__); if (code_) return code_; } while (0)
#define ENTER_CARD(handle) do { int code_ = enter_card(__func__, handle); if (code_) return code_; } while (0)

/* For tests: how often the library is open. */
uint mock_nvml_references(void) { return references; }

int nvmlInitWithFlags(uint flags) {
    (void)flags;
    int code = references ? SUCCESS : load();
    if (!code) code = faulty(fault, faults, "nvmlInitWithFlags");
    if (!code) references++;
    return code;
}

int nvmlShutdown(void) {
    ENTER();
    references--;
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    static char text[40];
    snprintf(text, sizeof text, "mock error %d", code);
    return text;
}

static int copy(char *target, uint length, const char *text) {
    return snprintf(target, length, "%s", text) < (int)length ? SUCCESS : INSUFFICIENT_SIZE;
}

int nvmlSystemGetDriverVersion(char *text, uint length) { ENTER(); return copy(text, length, driver); }
int nvmlSystemGetNVMLVersion(char *text, uint length) { ENTER(); return copy(text, length, version); }
int nvmlSystemGetCudaDriverVersion_v2(int *number) { ENTER(); *number = (int)cuda; return SUCCESS; }
int nvmlDeviceGetCount_v2(uint *count) { ENTER(); *count = gpus; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(uint index, Gpu **handle) {
    ENTER();
    if (index >= gpus) return INVALID_ARGUMENT;
    ENTER_CARD(&gpu[index]);
    *handle = &gpu[index];
    return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Gpu **handle) {
    ENTER();
    for (uint i = 0; i < gpus; i++)
        if (!strcmp(gpu[i].uuid, uuid)) {
            ENTER_CARD(&gpu[i]);
            *handle = &gpu[i];
            return SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(void *handle, char *text, uint length) {
    ENTER_CARD(handle);
    return copy(text, length, is_instance(handle) ? ((Instance *)handle)->uuid : holder(handle)->uuid);
}

int nvmlDeviceGetName(void *handle, char *text, uint length) {
    ENTER_CARD(handle);
    char name[192];
    if (!is_instance(handle)) return copy(text, length, holder(handle)->name);
    snprintf(name, sizeof name, "%s MIG %s", holder(handle)->name, ((Instance *)handle)->profile->name);
    return copy(text, length, name);
}

typedef struct { ull total, free, used; } Memory;
typedef struct { uint version; ull total, reserved, free, used; } Memory2;
_Static_assert(sizeof(Memory2) == 0x28, "nvmlMemory_v2");

int nvmlDeviceGetMemoryInfo(void *handle, Memory *out) {
    ENTER_CARD(handle);
    const ull *mib = holder(handle)->memory;
    *out = (Memory){mib[0] * MIB, (mib[0] - mib[2]) * MIB, mib[2] * MIB};
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(void *handle, Memory2 *out) {
    ENTER_CARD(handle);
    const ull *mib = holder(handle)->memory;
    if (out->version != 0x02000028) return VERSION_MISMATCH;
    *out = (Memory2){out->version, mib[0] * MIB, mib[1] * MIB, (mib[0] - mib[1] - mib[2]) * MIB, mib[2] * MIB};
    return SUCCESS;
}

int nvmlDeviceGetNumGpuCores(void *handle, uint *cores) {
    ENTER_CARD(handle);
    *cores = holder(handle)->cores;
    return *cores ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    ENTER_CARD(handle);
    *major = (int)holder(handle)->capability[0];
    *minor = (int)holder(handle)->capability[1];
    return SUCCESS;
}

int nvmlDeviceGetMemoryAffinity(void *handle, uint words, unsigned long *mask, uint scope) {
    ENTER_CARD(handle);
    int node = holder(handle)->numa;
    if (node < 0 || scope != 0 || (uint)node >= words * 64) return NOT_SUPPORTED;
    memset(mask, 0, words * sizeof *mask);
    mask[node / 64] = 1UL << (node % 64);
    return SUCCESS;
}

int nvmlDeviceGetRemappedRows(void *handle, uint *correctable, uint *uncorrectable, uint *pending, uint *failed) {
    ENTER_CARD(handle);
    const uint *rows = holder(handle)->remapped;
    *correctable = rows[0], *uncorrectable = rows[1], *pending = rows[2], *failed = rows[3];
    return SUCCESS;
}

typedef struct {
    uint field, scope;
    long long timestamp, latency;
    uint type;
    int code;
    union { double number; uint word; ull wide; } value;
} FieldValue;
_Static_assert(sizeof(FieldValue) == 40, "nvmlFieldValue");

int nvmlDeviceGetFieldValues(void *handle, int count, FieldValue *values) {
    ENTER_CARD(handle);
    for (int i = 0; i < count; i++) {
        values[i].type = TYPE_UNSIGNED_INT;
        values[i].code = values[i].field == FIELD_RECOVERY_ACTION ? SUCCESS : NOT_SUPPORTED;
        values[i].value.word = holder(handle)->recovery;
    }
    return SUCCESS;
}

typedef struct { uint pid; ull used; uint instance, compute; } ProcessInfo;
_Static_assert(sizeof(ProcessInfo) == 24, "nvmlProcessInfo_v2");

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, uint *count, ProcessInfo *out) {
    ENTER_CARD(handle);
    Gpu *card = holder(handle);
    uint room = *count;
    *count = card->processes;
    if (!card->processes) return SUCCESS;
    if (room < card->processes || !out) return INSUFFICIENT_SIZE;
    for (uint i = 0; i < card->processes; i++) {
        const Process *p = &card->process[i];
        out[i] = (ProcessInfo){p->pid, p->mib < 0 ? ~0ULL : (ull)p->mib * MIB, (uint)p->instance, (uint)p->compute};
    }
    return SUCCESS;
}

int nvmlDeviceGetMPSComputeRunningProcesses_v3(void *handle, uint *count, ProcessInfo *out) {
    ENTER_CARD(handle);
    (void)out;
    *count = 0;
    return SUCCESS;
}

/* -- MIG --------------------------------------------------------------------------------------------------------- */

int nvmlDeviceGetMigMode(void *handle, uint *now, uint *later) {
    ENTER_CARD(handle);
    if (is_instance(handle) || !holder(handle)->profiles) return NOT_SUPPORTED;
    *now = holder(handle)->mig[0], *later = holder(handle)->mig[1];
    return SUCCESS;
}

typedef struct {
    uint version, id, p2p, slices, count, sms, copy, decoders, encoders, jpeg, ofa;
    ull mib;
    char name[96];
} ProfileInfo;
_Static_assert(sizeof(ProfileInfo) == 0x98, "nvmlGpuInstanceProfileInfo_v2");

int nvmlDeviceGetGpuInstanceProfileInfoV(void *handle, uint enumerator, ProfileInfo *out) {
    ENTER_CARD(handle);
    Gpu *card = holder(handle);
    if (out->version != 0x02000098) return VERSION_MISMATCH;
    for (uint i = 0; i < card->profiles; i++) {
        const Profile *p = &card->profile[i];
        if (p->enumerator != enumerator) continue;
        *out = (ProfileInfo){.version = out->version, .id = p->id, .slices = p->slices, .count = p->count,
                             .sms = p->sms, .mib = p->mib};
        snprintf(out->name, sizeof out->name, "MIG %s", p->name);
        return SUCCESS;
    }
    return NOT_SUPPORTED;
}

typedef struct { uint start, size; } Placement;

int nvmlDeviceGetGpuInstancePossiblePlacements_v2(void *handle, uint id, Placement *out, uint *count) {
    ENTER_CARD(handle);
    Gpu *card = holder(handle);
    for (uint i = 0; i < card->profiles; i++) {
        const Profile *p = &card->profile[i];
        if (p->id != id) continue;
        if (out && *count < p->places) return INSUFFICIENT_SIZE;
        for (uint k = 0; out && k < p->places; k++) out[k] = (Placement){p->starts[k], p->size};
        *count = p->places;
        return SUCCESS;
    }
    return INVALID_ARGUMENT;
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, uint *count) {
    ENTER_CARD(handle);
    *count = holder(handle)->profiles ? 7 : 0;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, uint index, Instance **out) {
    ENTER_CARD(handle);
    Gpu *card = holder(handle);
    if (!card->mig[0]) return NOT_SUPPORTED;
    if (index >= card->instances) return NOT_FOUND;
    *out = &card->instance[index];
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(void *handle, uint *id) {
    ENTER_CARD(handle);
    if (!is_instance(handle)) return NOT_SUPPORTED;
    *id = ((Instance *)handle)->id;
    return SUCCESS;
}

int nvmlDeviceGetComputeInstanceId(void *handle, uint *id) {
    ENTER_CARD(handle);
    if (!is_instance(handle)) return NOT_SUPPORTED;
    *id = ((Instance *)handle)->compute;
    return SUCCESS;
}

typedef struct { uint sms, copy, decoders, encoders, jpeg, ofa, slices, compute_slices; ull mib; } Attributes;
_Static_assert(sizeof(Attributes) == 40, "nvmlDeviceAttributes");

int nvmlDeviceGetAttributes_v2(void *handle, Attributes *out) {
    ENTER_CARD(handle);
    if (!is_instance(handle)) return NOT_SUPPORTED;
    const Profile *p = ((Instance *)handle)->profile;
    *out = (Attributes){.sms = p->sms, .slices = p->slices, .compute_slices = p->slices, .mib = p->mib};
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceById(void *handle, uint id, Instance **out) {
    ENTER_CARD(handle);
    Gpu *card = holder(handle);
    for (uint i = 0; i < card->instances; i++)
        if (card->instance[i].id == id) {
            *out = &card->instance[i];
            return SUCCESS;
        }
    return NOT_FOUND;
}

typedef struct { void *device; uint id, profile; Placement place; } InstanceInfo;
_Static_assert(sizeof(InstanceInfo) == 24, "nvmlGpuInstanceInfo");

int nvmlGpuInstanceGetInfo(void *handle, InstanceInfo *out) {
    ENTER_CARD(handle);
    const Instance *i = handle;
    *out = (InstanceInfo){i->gpu, i->id, i->profile_id, {i->start, i->profile->size}};
    return SUCCESS;
}
