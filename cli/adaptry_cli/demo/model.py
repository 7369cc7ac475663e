BASE="HuggingFaceTB/SmolLM2-135M-Instruct"
