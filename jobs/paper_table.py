"""Make table 1 and figure 4 of the paper for one data set.   python jobs/paper_table.py"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("paper-table")
