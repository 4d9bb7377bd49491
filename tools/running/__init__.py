"""How a lot is done, whatever it is: jobs with results that are kept, outputs that are complete."""
