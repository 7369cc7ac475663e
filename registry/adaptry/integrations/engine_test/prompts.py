"""The default prompts: short, of several kinds, and always the same."""

PROMPTS = (
    "The capital of France is",
    "Once upon a time",
    "def fibonacci(n):",
    "Question: What is 12 times 7? Answer:",
    "Dear customer,",
    "The quick brown fox",
    "In summary, the main finding is that",
    "Translate to German: Good morning.",
    '{"name": "Ada", "age":',
    "SELECT * FROM",
    "I felt happy because",
    "The patient was admitted with",
)
