"""From usage to money: settlement and the check of the books."""
