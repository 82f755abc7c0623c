/* fastelbo from C, Cython and Numba: one call, one pass over dense arrays, without Python and its lock.
 *
 * A fastelbo_call says what there is and what is wanted; whatever it does not need is zero. Arrays are
 * C-contiguous and aligned, as large as the extents say, and what is written overlaps nothing: that nobody
 * can check. `fastelbo.capi` tells how to get a fastelbo_likelihood and a fastelbo_api.
 *
 * Functions return 0, FASTELBO_NO_MEMORY, or, before they have touched any array, FASTELBO_UNFIT: a pointer is
 * NULL that the function reads, or z where noise makes one; B or D is less than 1, or C none that the likelihood
 * can have; a dtype or an estimator is no such number; something is in half precision that the likelihood, the
 * bound, a KL from another Gaussian or the way back does not read; there is noise beside such a KL. Gradients of
 * outputs are all there or none, those of mu and logvar likewise, and so are, where there is a KL, row_log_prob
 * and row_kl; the bound has its gradients together, with the weights. */

#ifndef FASTELBO_H
#define FASTELBO_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum fastelbo_dtype {
    FASTELBO_UINT8 = 1,
    FASTELBO_INT8 = 2,
    FASTELBO_UINT16 = 3,
    FASTELBO_INT16 = 4,
    FASTELBO_UINT32 = 5,
    FASTELBO_INT32 = 6,
    FASTELBO_UINT64 = 7,
    FASTELBO_INT64 = 8,
    FASTELBO_FLOAT32 = 9,
    FASTELBO_FLOAT64 = 10,
    FASTELBO_FLOAT16 = 11,
    FASTELBO_BFLOAT16 = 12
};

enum fastelbo_status { FASTELBO_NO_MEMORY = -1, FASTELBO_UNFIT = -2 };

enum fastelbo_estimator { FASTELBO_STANDARD = 0, FASTELBO_STL = 1, FASTELBO_DREG = 2 };

#define FASTELBO_OUTPUTS 3              /* that a decoder may give */
#define FASTELBO_OWN 3                  /* that a likelihood may add */

typedef struct {
    int64_t samples;                    /* K of outputs (K, B, D); 0: they are (B, D) */
    int64_t batch, event, latent;       /* B, D, L */
    int64_t classes;                    /* C of a categorical likelihood, whose outputs are (B, D, C),
                                           or of a mixture, whose outputs are (B, C, D) */
    int32_t dtype;                      /* FASTELBO_FLOAT32 or _FLOAT64: of all but x */
    int32_t x_dtype;
    int32_t output_dtype;               /* of outputs and d_outputs, in half precision; 0: dtype */
    int32_t latent_dtype;               /* the same of mu, logvar, d_mu and d_logvar */
    int32_t columns, summed;            /* outputs (bits: 2 is the second) that are (D,), and whose
                                           gradients are: only theta of counts may be, and
                                           not its gradient by the bound */
    const void *x;                      /* (B, D); NULL: there is no likelihood */
    const void *outputs[FASTELBO_OUTPUTS];      /* of the decoder, (B, D) each */
    const void *mu, *logvar;            /* (B, L); NULL: there is no KL */
    const void *mu_p, *logvar_p;        /* (B, L): of p; NULL: it is N(0, I) */
    const void *noise;                  /* (B, L) standard normals, or NULL */
    uint64_t key;                       /* of the noise to draw */
    int32_t draws;                      /* whether to */
    int32_t estimator;                  /* FASTELBO_STANDARD, ... */
    double weight, kl_weight;           /* gradients are of weight * log p + kl_weight * KL */
    void *z;                            /* (B, L): mu + e^(logvar/2) noise, where there is noise */
    void *d_outputs[FASTELBO_OUTPUTS];  /* the gradients; the first NULL: none wanted */
    void *d_mu, *d_logvar, *d_mu_p, *d_logvar_p, *d_z;
    void *weights;                      /* (K, B): the normalised importance weights */
    double *row_log_prob, *row_kl;      /* (B,), of samples (K, B) and (B,): filled instead of the sums
                                           below */
    double *bound;                      /* (B,): the importance-weighted bounds */
    const void *follower;               /* not for others to set */
    int32_t threads;                    /* at least 1; no more run than 64, or there are processors */
    int32_t outside;                    /* set: something lay outside the domain */
    double log_prob, kl;                /* set: sums over the batch */
} fastelbo_call;

/* A likelihood as a pass takes it. Nothing here is for others to read. */
struct fastelbo_own {
    const void *data[2];                /* for float64 and float32 */
    int32_t storage;                    /* a dtype; 0: that of the call */
    int32_t spread;                     /* one number for all elements */
};
typedef struct fastelbo_likelihood fastelbo_likelihood;
struct fastelbo_likelihood {
    int32_t (*run)(const fastelbo_likelihood *, fastelbo_call *);
    void *term[2];                      /* for float64 and float32 */
    int32_t outputs, owns, gradients;
    int32_t nan_missing, follows, columns;
    int64_t classes;                    /* C of outputs with such an axis; -1: any; 0: they have none */
    double x_scale, factor, constant;
    int64_t event;                      /* elements that what it adds is for; 0: any number */
    struct fastelbo_own own[FASTELBO_OWN];
};

typedef struct {
    /* log p(x|z), and the KL unless mu is NULL: their sums, or a value a row, and gradients */
    int32_t (*elbo)(const fastelbo_likelihood *, fastelbo_call *);
    /* the KL alone; z and the KL where there is noise */
    int32_t (*kl)(fastelbo_call *);
    /* the way back through z: d_mu, d_logvar of d_z and z, and of kl_weight times the KL */
    int32_t (*backward)(fastelbo_call *);
    /* importance-weighted bounds of z (K, B, L) and outputs (K, B, D); log_prob: their sum */
    int32_t (*iwae)(const fastelbo_likelihood *, fastelbo_call *);
} fastelbo_api;

#ifdef Py_PYTHON_H
/* The functions, for a module of C; NULL with an exception set. */
static inline const fastelbo_api *fastelbo_import(void) {
    return (const fastelbo_api *)PyCapsule_Import("fastelbo.capi.API", 0);
}
#endif

#ifdef __cplusplus
}
#endif
#endif
