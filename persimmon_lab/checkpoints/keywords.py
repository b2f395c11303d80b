"""Arguments that transformers' `from_pretrained` and `save_pretrained` take and ours do not need, or do otherwise."""

from persimmon_lab.elsewhere import UPLOADS

READ_ONE_BY_ONE = "weights are always read one by one"
OFFLOAD = "persimmon_lab.fitting.offload.load_over_devices"
ADAPTER = "peft.PeftModel.from_pretrained"
CONVERT = "transformers 4.37.2 to save it as safetensors first"

LOADING_IGNORES = {
    "low_cpu_mem_usage": READ_ONE_BY_ONE,
    "offload_state_dict": READ_ONE_BY_ONE,
    "force_download": "huggingface_hub.snapshot_download(force_download=True) does it",
    "resume_download": "downloads always go on where they ended",
    "mirror": "HF_ENDPOINT is read by huggingface_hub",
    "trust_remote_code": "no code of a repository is ever run",
}
LOADING_REFUSES = {
    "adapter_kwargs": ADAPTER,
    "adapter_name": ADAPTER,
    "device_map": OFFLOAD,
    "from_flax": CONVERT,
    "from_tf": CONVERT,
    "ignore_mismatched_sizes": "num_labels=, or resize_token_embeddings after loading",
    "load_in_4bit": 'quantize="int4"',
    "load_in_8bit": 'quantize="int8"',
    "max_memory": OFFLOAD,
    "offload_folder": OFFLOAD,
    "output_loading_info": "the warning that names what is new; whatever else does not fit is an error",
    "proxies": "HTTPS_PROXY in the environment",
    "quantization_config": 'quantize="int8" or "int4", or torchao.quantize_ on the loaded model',
    "state_dict": "load_state_dict on a model made from the configuration",
    "subfolder": "the path of the folder itself",
    "use_auth_token": "token=",
    "use_flash_attention_2": 'attn_implementation="sdpa"',
    "use_safetensors": "the files of the folder: safetensors are read where there are some, else pickles of tensors",
    "variant": "the path of the folder itself",
}
SAVING_IGNORES = {
    "save_function": "safetensors are written here, whole or not at all",
    "save_peft_format": "adapters are saved by peft",
    "ignore_metadata_errors": "no model card is written",
    "save_config": "the configuration is always written",
}
SAVING_REFUSES = {
    **UPLOADS,
    "variant": "a folder of its own",
}
