"""The items of scripts/bench, a module for each room they measure."""
