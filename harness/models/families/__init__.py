"""Families of diffusion transformers, one file each: what methods, solvers and costs need to know of a diffusers pipeline."""
