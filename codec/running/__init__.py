"""How a lot is done, whatever it is: jobs with stable keys, results that are kept."""
