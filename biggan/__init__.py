"""An exact, resumable, observable BigGAN trainer (Brock, Donahue, Simonyan, ICLR 2019)."""
