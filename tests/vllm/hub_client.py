"""Uploads an adapter as a Hub client does: a process, since HF_ENDPOINT is read on import.

python hub_client.py push_to_hub NAME FOLDER BASE
python hub_client.py upload_folder NAME FOLDER
"""

import sys

import huggingface_hub
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

how, name, folder, *base = sys.argv[1:]
if how == "push_to_hub":
    model = AutoModelForCausalLM.from_pretrained(base[0], dtype=torch.float32)
    PeftModel.from_pretrained(model, folder).push_to_hub(name)
else:
    huggingface_hub.create_repo(name)
    huggingface_hub.upload_folder(repo_id=name, folder_path=folder)
