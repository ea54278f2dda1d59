"""What is peculiar to each engine, a row each: hal0's own flags for it, its paths, and how its flags are spelled.

Sources: the help of llama-server 0.7 and llama.cpp's server README, whisper-server 1.9.5's help, the READMEs of
stable-diffusion.cpp's server, and vLLM's `vllm serve --help`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hal0.core.flags import UNKNOWN, Syntax, syntax
from hal0.core.schema import Engine, SlotType


@dataclass(frozen=True, slots=True)
class EngineKind:
    """One engine.

    ``base`` is what hal0 always says, with the placeholders of profiles. ``mmproj``, ``context``, ``sleep`` and
    ``threads`` are its flags for a model's vision part, tokens of context, seconds of being unused, and threads;
    empty where it has none. ``types`` are the flags that a type of slot needs. ``paths`` says where it serves a path
    of /v1, if elsewhere. Of ``apart``, no two keys of one set go together.
    """

    base: tuple[str, ...] = ()
    mmproj: str = ""
    context: str = ""
    sleep: str = ""
    threads: str = ""
    types: Mapping[SlotType, tuple[str, ...]] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    flags: Syntax = UNKNOWN
    apart: tuple[frozenset[str], ...] = ()


_LLAMA_FLAGS = """\
--help -h --usage
--cache-list -cl
--model -m
--alias -a
--threads -t
--threads-batch -tb
--cpu-mask -C
--cpu-range -Cr
--cpu-mask-batch -Cb
--cpu-range-batch -Crb
--ctx-size -c
--predict -n --n-predict
--batch-size -b
--ubatch-size -ub
--keep
--flash-attn -fa
--perf --no-perf
--escape -e --no-escape
--kv-offload -kvo -nkvo --no-kv-offload
--repack -nr --no-repack
--cache-type-k -ctk
--cache-type-v -ctv
--defrag-thold -dt
--load-mode -lm
--lazy-mode -lzm
--mmap --no-mmap
--device -dev
--override-tensor -ot
--cpu-moe -cmoe
--n-cpu-moe -ncmoe
--n-cpu-ffn -ncffn
--gpu-layers -ngl --n-gpu-layers
--split-mode -sm
--tensor-split -ts
--main-gpu -mg
--fit -fit
--fit-target -fitt
--fit-ctx -fitc
--check-tensors
--override-kv
--op-offload --no-op-offload
--lora
--lora-scaled
--control-vector
--control-vector-scaled
--model-url -mu
--docker-repo -dr
--hf-repo -hf -hfr
--hf-file -hff
--hf-token -hft
--log-jsonl --no-log-jsonl
--verbose -v --log-verbose
--verbosity -lv --log-verbosity
--log-prefix --no-log-prefix
--log-timestamps --no-log-timestamps
--seed -s
--sampling-seq --sampler-seq
--temperature --temp
--top-k
--top-p
--min-p
--top-n-sigma --top-nsigma
--typical-p --typical
--dry-sequence-breaker
--logit-bias -l
--json-schema -j
--json-schema-file -jf
--backend-sampling -bs
--lookup-cache-static -lcs
--lookup-cache-dynamic -lcd
--ctx-checkpoints -ctxcp --swa-checkpoints
--checkpoint-min-step -cms
--cache-ram -cram
--kv-unified -kvu -no-kvu --no-kv-unified
--cache-idle-slots --no-cache-idle-slots
--context-shift --no-context-shift
--reverse-prompt -r
--special -sp
--warmup --no-warmup
--pooling
--parallel -np
--cont-batching -cb -nocb --no-cont-batching
--mmproj -mm
--mmproj-url -mmu
--mmproj-auto --no-mmproj --no-mmproj-auto
--mmproj-offload --no-mmproj-offload
--mmproj-device -mmdev
--host
--port
--api-prefix
--cors-credentials --no-cors-credentials
--models-autoload --no-models-autoload
--agent -ag -no-ag --no-agent
--ui-config --webui-config
--ui-config-file --webui-config-file
--ui-mcp-proxy --webui-mcp-proxy --no-ui-mcp-proxy --no-webui-mcp-proxy
--ui --webui --no-ui --no-webui
--embeddings --embedding
--reranking --rerank
--timeout -to
--threads-http
--cache-prompt --no-cache-prompt
--cache-reuse
--metrics
--props
--slots --no-slots
--slot-save-path
--jinja --no-jinja
--reasoning -rea
--reasoning-preserve --no-reasoning-preserve
--skip-chat-parsing --no-skip-chat-parsing
--chat-template
--chat-template-file
--prefill-assistant --no-prefill-assistant
--slot-prompt-similarity -sps
--sleep-idle-seconds
--draft-max --draft --draft-n
--draft-min --draft-n-min
--draft-p-split --spec-draft-p-split
--draft-p-min --spec-draft-p-min
--spec-draft-backend-sampling --no-spec-draft-backend-sampling
--hf-repo-draft -hfd -hfrd --spec-draft-hf
--cpu-mask-draft -Cd --spec-draft-cpu-mask
--cpu-range-draft -Crd --spec-draft-cpu-range
--cpu-strict-draft --spec-draft-cpu-strict
--prio-draft --spec-draft-prio
--poll-draft --spec-draft-poll
--cpu-mask-batch-draft -Cbd --spec-draft-cpu-mask-batch
--cpu-strict-batch-draft --spec-draft-cpu-strict-batch
--prio-batch-draft --spec-draft-prio-batch
--poll-batch-draft --spec-draft-poll-batch
--model-draft -md --spec-draft-model
--gpu-layers-draft -ngld --n-gpu-layers-draft --spec-draft-ngl
--device-draft -devd --spec-draft-device
--threads-draft -td --spec-draft-threads
--threads-batch-draft -tbd --spec-draft-threads-batch
--cache-type-k-draft -ctkd --spec-draft-type-k
--cache-type-v-draft -ctvd --spec-draft-type-v
--override-tensor-draft -otd --spec-draft-override-tensor
--cpu-moe-draft -cmoed --spec-draft-cpu-moe
--n-cpu-moe-draft -ncmoed --spec-draft-ncmoe --spec-draft-n-cpu-moe
"""
_LLAMA_REPEATABLE = (
    *("--override-tensor", "--override-tensor-draft", "--override-kv", "--lora", "--lora-scaled", "--control-vector"),
    *("--control-vector-scaled", "--dry-sequence-breaker", "--logit-bias", "--reverse-prompt"),
)
"""Older builds add these up; newer ones take values with commas in between, and the last of several."""

_WHISPER_FLAGS = """\
--model -m
--threads -t
--processors -p
--offset-t -ot
--offset-n -on
--duration -d
--max-context -mc
--max-len -ml
--split-on-word -sow
--best-of -bo
--beam-size -bs
--word-thold -wt
--entropy-thold -et
--logprob-thold -lpt
--debug-mode -debug
--translate -tr
--diarize -di
--tinydiarize -tdrz
--no-fallback -nf
--print-special -ps
--print-colors -pc
--print-realtime -pr
--print-progress -pp
--no-timestamps -nt
--language -l
--detect-language -dl
--ov-e-device -oved
--flash-attn -fa -nfa --no-flash-attn
--no-gpu -ng
--host
--port
--inference-path
"""

# A model that comes in parts is given by --diffusion-model, in the place of the whole one.
_SD_FLAGS = """\
--model -m --diffusion-model
--listen-ip -l
--listen-port
--threads -t
--llm --qwen2vl
--llm_vision --qwen2vl_vision
--taesd --tae
--verbose -v
--prompt -p
--negative-prompt -n
--init-img -i
--height -H
--width -W
--batch-count -b
--seed -s
--ref-image -r
"""

_VLLM_FLAGS = """\
--host
--port
--served-model-name
--max-model-len
--quantization -q
--tensor-parallel-size -tp
--pipeline-parallel-size -pp
--data-parallel-size -dp
--gpu-memory-utilization
"""

_AS_JINA = {"/v1/rerankings": "/v1/rerank"}
ENGINES: Mapping[Engine, EngineKind] = {
    Engine.LLAMA_SERVER: EngineKind(
        base=("--model", "{model}", "--host", "{host}", "--port", "{port}", "--alias", "{name}", "--metrics"),
        mmproj="--mmproj",
        context="--ctx-size",
        sleep="--sleep-idle-seconds",
        threads="--threads",
        types={SlotType.EMBEDDING: ("--embedding",), SlotType.RERANKING: ("--reranking",)},
        paths={**_AS_JINA, "/v1/tokenize": "/tokenize", "/v1/infill": "/infill"},
        flags=syntax(_LLAMA_FLAGS, repeatable=_LLAMA_REPEATABLE),
        apart=(frozenset({"--embeddings", "--reranking"}),),
    ),
    Engine.WHISPER_SERVER: EngineKind(
        base=(
            *("--model", "{model}", "--host", "{host}", "--port", "{port}"),
            *("--inference-path", "/v1/audio/transcriptions"),
        ),
        threads="--threads",
        flags=syntax(_WHISPER_FLAGS),
    ),
    Engine.SD_SERVER: EngineKind(
        base=("--model", "{model}", "--listen-ip", "{host}", "--listen-port", "{port}"),
        threads="--threads",
        flags=syntax(_SD_FLAGS, repeatable=("--ref-image",)),
    ),
    Engine.VLLM: EngineKind(
        base=(
            *("serve", "{model}", "--host", "{host}", "--port", "{port}"),
            *("--served-model-name", "{model_name}", "{name}"),
        ),
        context="--max-model-len",
        paths={**_AS_JINA, "/v1/tokenize": "/tokenize"},
        flags=syntax(_VLLM_FLAGS),
    ),
    Engine.CUSTOM: EngineKind(paths=_AS_JINA),
}
