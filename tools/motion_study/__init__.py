"""Ulhaq & Bajić 2021, reproduced and carried on: an experiment a module."""
