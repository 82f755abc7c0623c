from . import common


class StudentT(common._Likelihood):
    baseline = "student_t"


class StudentTAndGrad(StudentT):
    baseline = "student_t_and_grad"
