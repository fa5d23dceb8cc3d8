from pathlib import Path
def write_sweep_report(folder): return Path(folder)/"report.html"
