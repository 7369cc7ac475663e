"""What a server asks of the process that computes for it, so that it need not: `client` starts that process
and passes its answers on, `framing` is how the two speak, `inputs` what they speak about. Nothing here
computes, or imports what does.
"""
