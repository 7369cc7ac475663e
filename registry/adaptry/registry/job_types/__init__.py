"""Jobs as values: what may be asked, how it goes, when a schedule is due."""
