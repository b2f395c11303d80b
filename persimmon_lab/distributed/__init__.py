"""One model on several devices, by torch's own DTensor and FSDP2, under torchrun."""
