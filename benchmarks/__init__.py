"""Speed and memory as ratios against a limit taken in the same run."""
