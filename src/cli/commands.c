/* The commands, and what is said about them. A command of two words belongs to the group that its first word names. */
#include "cli.h"

const struct command commands[] = {
    {"run", CMD_RUN, "[-m FILE] -p TEXT [options]", "generate text",
     "Continues a prompt and streams the text to standard output; a summary with the speed goes to standard error.\n"
     "Ctrl-C stops after the current token (exit status 1), a second one at once.\n",
     "  vkmoe run -p \"The storm kept everyone inside that night.\"\n"
     "  vkmoe run -m olmoe-1b-7b.gguf -p \"Once upon a time\" -n 200 --temp 0.7 --seed 1\n"
     "  git log -1 | vkmoe run -m model.gguf -p - --temp 0\n", run_command, 0, 0},
    {"logits", CMD_LOGITS, "[-m FILE] (--tokens 1,2,3 | -p TEXT) -o OUT.npy [options]", "write the logits of every position",
     "Evaluates tokens and writes the logits of every position as a NumPy file, f32 [n_tokens][n_vocab].\n"
     "The file appears only when it is complete.\n",
     "  vkmoe logits -m model.gguf --tokens 1,415,2936 -o logits.npy\n"
     "  vkmoe logits -m model.gguf -p \"The cat\" --decode --kv f16 --caps baseline -o logits.npy\n"
     "  vkmoe logits -m model.gguf -p \"The cat\" --profile\n", logits_command, 0, 0},
    {"tokenize", CMD_TOKENIZE, "[-m FILE] -p TEXT [options]", "turn text into token ids",
     "Prints the token ids of a text and the piece of text of each; needs no device.\n",
     "  vkmoe tokenize -m model.gguf -p \"Hello world\"\n"
     "  vkmoe tokenize -m model.gguf -p - --json < book.txt\n", tokenize_command, 0, 0},
    {"info", CMD_INFO, "[-m FILE] [--kernels] [--json]", "describe devices, a model file, the kernels",
     "Shows the Vulkan devices and what vkmoe uses of them; with -m what is in a model file; with --kernels the kernel variants\n"
     "of this build and which of them the device can run.\n",
     "  vkmoe info\n"
     "  vkmoe info -m model.gguf --tensors\n"
     "  vkmoe info --kernels --device 0 --caps baseline\n", info_command, 0, 0},
    {"tune", CMD_TUNE, "[--type T,..] [options]", "measure which kernels are the fastest on this device",
     "The rows of a matrix multiplication are cut into tiles of 1, 4, 8 or 16 (with cooperative matrices up to 128); which of them pay depends on device, driver and type of weights.\n"
     "Measures what a tile of each size costs, a dispatch, and (with --caps int8dot) whether products of integers are faster; keeps that for this device, driver, build and --caps in $XDG_CACHE_HOME/vkmoe; run, logits and bench model then go by it.\n"
     "Texts and logits stay the same, bit for bit (but with --caps coopmat or int8dot). Ctrl-C leaves what was known before.\n",
     "  vkmoe tune\n"
     "  vkmoe tune --type q4_k,q6_k --caps fp16\n"
     "  vkmoe tune --check 50 --json\n", tune_command, 0, 0},
    {"bench", 0, "roofline|layer|model|kernels|compare [options]", "measure the device, the MoE layer, a model",
     "Measures, and says how far its own figures can be trusted: each is the median of runs that follow a warm-up and are repeated until the 95 % interval of\n"
     "the median is within 2 %, or --budget is used up. A figure that cannot be right (a lost device, above the ceiling) is marked invalid instead of printed.\n"
     "Ctrl-C ends a measurement and writes what is there, marked incomplete.\n",
     "  vkmoe bench model -m olmoe-1b-7b.gguf -p 128,512 -n 64\n"
     "  vkmoe bench layer --shape qwen3-30b-a3b --type q4_k --json -o layer.json --html layer.html\n"
     "  vkmoe bench compare before.json after.json\n", NULL, 0, 0},
    {"bench roofline", CMD_ROOFLINE, "[options]", "ceilings of the device: bandwidth, arithmetic, cost of a dispatch",
     "Measures what the device can do at most: bandwidth, arithmetic of each kind that it has, and what dispatches, barriers and submissions cost.\n",
     "  vkmoe bench roofline\n"
     "  vkmoe bench roofline --device 0 --json -o device.json\n", bench_roofline_command, 0, 0},
    {"bench layer", CMD_LAYER, "[--shape NAME|all] [--type T] [--tokens 1,8,512] [options]", "the MoE layer alone, at the shapes of known models",
     "Runs the MoE layer of known models on weights that are made on the device, and shows of each step the time, the bytes and operations that it must move and\n"
     "do, and the share of the ceilings measured in the same run.\n",
     "  vkmoe bench layer --shape olmoe-1b-7b --type q4_k,q8_0 --tokens 1,8,64,512\n"
     "  vkmoe bench layer --shape all --html layer.html\n", bench_layer_command, 0, 0},
    {"bench model", CMD_MODEL, "[-m FILE] [-p N,N] [-n N,N] [-b N,N] [options]", "tokens per second, latency, load time and memory of a model",
     "pp N: a prompt of N tokens in an empty context, in passes of 512. tg N: N tokens one at a time from an empty context, always the likeliest, going on after an\n"
     "end of text; with -b so many sequences at once, each from a token of its own, in one session that has room for the most of them. Each with tokens per second, the CPU time of this process, and the time of each kernel step on the device, beside the ceilings of the device. Also\n"
     "the time to the first token of a prompt; and, without and with a pipeline cache, the time to open the device, to load the model, and until its pipelines are made. The caches are temporary ones,\n"
     "so nothing that is kept elsewhere makes the first start look fast. On a CPU driver device memory is host memory too.\n",
     "  vkmoe bench model\n"
     "  vkmoe bench model -m olmoe-1b-7b.gguf -p 128,512 -n 64 --md\n"
     "  vkmoe bench model -m olmoe-1b-7b.gguf -p 0 -n 64 -b 1,4,16\n"
     "  vkmoe bench model -m olmoe-1b-7b.gguf -r 5 --json -o after.json --html after.html\n", bench_model_command, 0, 0},
    {"bench kernels", CMD_KERNELS, "[-m FILE] [options]", "registers, spills and occupancy of a model's kernels, as the driver tells",
     "Compiles the kernels of a long prompt, of one token and of eight sequences' tokens without running them, and shows what the driver's compiler says of each\n"
     "(VK_KHR_pipeline_executable_properties). What the figures mean is the driver's affair: compare kernels on one driver, not drivers.\n",
     "  vkmoe bench kernels\n"
     "  vkmoe bench kernels -m olmoe-1b-7b.gguf --json -o kernels.json\n", bench_kernels_command, 0, 0},
    {"bench compare", CMD_COMPARE, "A.json B.json [...] [options]", "two or more reports, as ratios",
     "Reads reports that other bench commands wrote with --json, finds the rows that they share and shows B over A; above 1 is faster. Another device, driver,\n"
     "commit or tier is the point of it, and is stated. Reports with nothing in common, of different models or of another schema are refused.\n",
     "  vkmoe bench compare before.json after.json\n"
     "  vkmoe bench compare amd.json intel.json nvidia.json --html gpus.html\n", bench_compare_command, 2, ARGS_FILES},
};
const size_t n_commands = sizeof commands / sizeof commands[0];
