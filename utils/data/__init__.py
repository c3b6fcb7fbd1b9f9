"""Floor 1: corpora, tokenizers and the batches made from them."""
