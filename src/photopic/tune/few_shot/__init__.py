"""Few-shot methods that mask tuning and unified tuners are compared with: one file a method, the same data, steps and seeds."""
