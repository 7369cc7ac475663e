"""What a server asks of the process that computes for it, so that it need not: `calling` starts that process and passes its
answers on, `frames` is how the two speak, `ingredients` what they speak about. Nothing here computes, or imports what does.
"""
