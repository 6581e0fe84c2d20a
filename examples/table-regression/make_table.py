"""Write scikit-learn's diabetes data as diabetes.csv: 442 patients, ten measurements, progression after a year."""

from sklearn.datasets import load_diabetes

load_diabetes(as_frame=True, scaled=False).frame.to_csv("diabetes.csv", index=False)
